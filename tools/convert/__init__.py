"""Converters: weights that leave for fine-tuning, and weights that come in."""
