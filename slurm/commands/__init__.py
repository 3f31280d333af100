"""The commands of ``python -m slurm``: submit, status, logs, cancel, requeue."""
