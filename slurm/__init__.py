"""Runs on SLURM clusters: submitted, watched, stopped, requeued.

``python -m slurm submit`` checks a run and submits its supervisor (submitit writes the
script and calls sbatch). The supervisor is the job's batch process: it starts one task for
each rank through srun, watches them, and owns signals, requeueing and successors. A task
sets the variables of torchrun and starts ``python -m pretrain``, which knows no SLURM.
"""
