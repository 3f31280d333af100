"""Sequence to sequence: candidates for sources, a choice among them, and how good it is."""
