"""``python -m tools.sample``: text from a run or checkpoint."""
