"""Allocation: how the ratio is spread over the channel sets. One file each."""

from core.allocation.base import ALLOCATIONS, Allocation, register

__all__ = ["ALLOCATIONS", "Allocation", "register"]
