"""``python -m tools.evaluate``: held-out numbers and scores of a run."""
