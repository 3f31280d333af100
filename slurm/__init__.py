"""Runs on SLURM clusters: submit, status, logs, cancel, requeue.

``python -m slurm submit`` checks a run and submits its supervisor (submitit writes the
script and calls sbatch). The supervisor is the job's batch process: it starts one task for
each rank through srun, watches their heartbeats, and handles signals, requeueing and successor
jobs. A task sets the environment variables of torchrun and starts ``python -m pretrain``, which
contains no SLURM code.
"""
