"""``python -m tools.plan``: what a run needs on a cluster."""
