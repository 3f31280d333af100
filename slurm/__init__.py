"""Submission to SLURM clusters."""
