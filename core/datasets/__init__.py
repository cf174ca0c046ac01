"""Datasets: one file each; `load_dataset` finds, checks and, if need be, downloads one by name."""

from core.datasets.base import ImageDataset, Split, register
from core.datasets.loading import load_dataset
from core.parts import DATASETS

__all__ = ["DATASETS", "ImageDataset", "Split", "load_dataset", "register"]
