"""Plots: one file each."""
