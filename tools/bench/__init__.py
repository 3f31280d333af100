"""`python -m tools.bench`: measurements of this machine, each with its own comparison."""
