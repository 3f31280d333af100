"""Demo of every step from text to samples; the numbers shown depend on the objective."""
