"""Known answers: what is known exactly about each method, and stand-ins for a trained network."""
