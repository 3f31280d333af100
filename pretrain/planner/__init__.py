"""Planner: predicted size, memory, traffic and speed of a parallel layout, without running it."""
