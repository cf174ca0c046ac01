"""Datasets: one file each; `load_dataset` finds, checks and, if need be, downloads one by name."""

from core.datasets.base import DATASETS, ImageDataset, Split, register
from core.datasets.loading import load_dataset

__all__ = ["DATASETS", "ImageDataset", "Split", "load_dataset", "register"]
