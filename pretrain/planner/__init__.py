"""Sizes, memory, traffic and speed of a layout, known before anything runs."""
