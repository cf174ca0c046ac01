"""What people are told of a sweep: progress, state, outcome."""
