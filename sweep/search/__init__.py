"""Which configurations a sweep tries, and in which order."""
