"""Converting weights to and from other formats, for fine-tuning and to begin a run from."""
