"""Everything that trains the model at scale: ``python -m pretrain CONFIG.yaml``."""
