"""The public tasks of lm-evaluation-harness, by the bound and the samplers of a model."""
