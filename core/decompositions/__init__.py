"""Decompositions: what makes up for the removed channels. One file each; the options are the class's fields."""

from core.decompositions.base import DECOMPOSITIONS, Decomposition, register

__all__ = ["DECOMPOSITIONS", "Decomposition", "register"]
