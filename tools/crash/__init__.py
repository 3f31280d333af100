"""Runs that are killed at random moments, and disks that fail: what is committed stays."""
