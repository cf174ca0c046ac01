"""How trials are run: Ray, its workers, and what they share."""
