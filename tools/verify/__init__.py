"""Checks that a machine computes what it should: oracles of the objectives, and invariance."""
