"""``python -m tools.report``: pictures of runs, from their metrics."""
