"""What runs inside a job: the supervisor, and the parent of each rank."""
