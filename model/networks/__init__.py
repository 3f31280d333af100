"""Networks: lists of layers that answer queries, one architecture a file."""
