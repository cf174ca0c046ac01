"""Faults in real sweeps, and what is left of them: ``python -m benchmarks.faults --help``."""
