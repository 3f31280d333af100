"""What is taken where nobody says: names that generic code must not hold itself."""

OBJECTIVE = "mdlm"
"""Of weights that come without a run, and of benches: what every denoiser of ids can train."""
