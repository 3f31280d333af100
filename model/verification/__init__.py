"""Verification: exact known answers for each method, and stand-ins for a trained network."""
