"""The paper's LeNet-300-100 table, to two decimals, from the published checkpoint and FashionMNIST's test images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.compress import Prepared, compress, prepare
from core.datasets import ImageDataset
from core.measure import accuracy_and_loss
from core.models import load_model

Evaluate = Callable[..., float]


@pytest.fixture(scope="module")
def lenet(reference: Path) -> tuple[torch.nn.Module, dict]:
    table = json.loads((reference / "paper_tables.json").read_text())["lenet-300-100/fashion-mnist"]
    return load_model("lenet-300-100", reference / table["checkpoint"]), table


@pytest.fixture(scope="module")
def evaluate(lenet: tuple[torch.nn.Module, dict], fashion_mnist: ImageDataset) -> Evaluate:
    images, labels = fashion_mnist.inputs("test")
    prepared: Prepared = prepare(lenet[0], images[:1])

    def accuracy(**configuration: object) -> float:
        result = compress(prepared, images[:1], **configuration)  # type: ignore[arg-type]
        return round(accuracy_and_loss(result.model, images, labels)[0], 2)

    return accuracy


def test_baseline(lenet: tuple[torch.nn.Module, dict], fashion_mnist: ImageDataset) -> None:
    assert round(accuracy_and_loss(lenet[0], *fashion_mnist.inputs("test"))[0], 2) == lenet[1]["baseline_accuracy"]


def test_every_figure_of_the_table(lenet: tuple[torch.nn.Module, dict], evaluate: Evaluate) -> None:
    table = lenet[1]
    assert len(table["rows"]) == 4
    for row in table["rows"]:
        common = {"ratio": row["ratio"], "criterion": table["criterion"]}
        assert evaluate(**common, decomposition="none") == row["prune"], row
        merged = evaluate(**common, decomposition="most-similar", options={"threshold": table["threshold"]})
        assert merged == row["merge"], row


def test_dense_non_negative_factors_lose_to_merging(evaluate: Evaluate) -> None:
    """The reviewers' question, answered: NNLS approximates the weights better and the network worse."""
    assert evaluate(ratio=0.8, decomposition="nmf") == 72.28
    assert evaluate(ratio=0.8, decomposition="nmf", options={"hard": True}) > 78


@pytest.mark.parametrize("start", [0, 10_000])
@pytest.mark.parametrize(("ratio", "least"), [(0.5, 88.9), (0.7, 86.0), (0.8, 82.0)])
def test_least_squares_with_256_unlabelled_images(
    evaluate: Evaluate, fashion_mnist: ImageDataset, start: int, ratio: float, least: float
) -> None:
    calibration = fashion_mnist.normalise(fashion_mnist.train.images[start : start + 256])
    assert evaluate(ratio=ratio, decomposition="least-squares", calibration=calibration) >= least
