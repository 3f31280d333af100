"""``python -m tools.compare``: configurations trained on equal terms, and one table of them."""
