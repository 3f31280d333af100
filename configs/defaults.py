"""Defaults that name one method, kept out of generic code."""

OBJECTIVE = "mdlm"
"""Objective of weights without a run, and of benchmarks; it trains any denoiser of ids."""
