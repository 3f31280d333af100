"""A run directory and what a run writes: status, metrics, progress, provenance."""
