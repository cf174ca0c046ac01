"""Allocation: how the ratio is spread over the channel sets. One file each."""

from core.allocation.base import ALLOCATIONS, AllocatedSet, Allocation, AllocationRequest, register

__all__ = ["ALLOCATIONS", "AllocatedSet", "Allocation", "AllocationRequest", "register"]
