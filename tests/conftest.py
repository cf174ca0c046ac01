"""Fixtures that every test may use, and quiet settings for the libraries underneath."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    MPLBACKEND="Agg",
)

import torch

from core.datasets import ImageDataset, load_dataset
from core.errors import DataError
from core.metrics import METRICS

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)


@pytest.fixture
def forgotten_metrics() -> Iterator[None]:
    """What a test declares is not known to the next one."""
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with the published checkpoint, scale matrices and tables."""
    folder = Path(os.environ.get("NMS_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; NMS_REFERENCE can name the folder with the published reference files")
    return folder


@pytest.fixture(scope="session")
def fashion_mnist() -> ImageDataset:
    """FashionMNIST, found or fetched as in a sweep."""
    try:
        return load_dataset("fashion-mnist", cache_dir=ROOT / "data")
    except DataError as error:
        pytest.skip(str(error))
