"""The whole road once, from text to samples; what is shown at its end depends on the objective."""
