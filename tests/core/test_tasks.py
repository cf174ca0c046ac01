"""Tasks of the user's, and evaluators that measure a network as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from core import metrics
from core.errors import DataError, UnknownNameError, UsageError
from core.evaluators import EVALUATORS, find_evaluator, measured
from core.tasks import ImageBatches, Samples, Task

X, Y = torch.arange(12.0).view(6, 2), torch.arange(6.0).view(6, 1)


pytestmark = pytest.mark.usefixtures("forgotten_metrics")


def task(**changes: Any) -> Task:
    given = {"example_inputs": X[:1], "calibration": X, "batches": [(X, Y)], **changes}
    return Task(**given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batches": iter([])}, r"batches must be a list, .*list\(loader\) makes one"),
        ({"batches": []}, "batches is empty"),
        ({"test": []}, "test is empty"),
        ({"example_inputs": 3}, "example_inputs holds a int: give a tensor"),
        ({"example_inputs": torch.tensor(1.0)}, "example_inputs holds a number"),
        ({"calibration": X[:, :1]}, r"calibration has inputs \[\(1,\)\], and example_inputs \[\(2,\)\]"),
        ({"example_inputs": (X[:1], Y[:1]), "calibration": (X, Y[:2])}, r"calibration has \[6, 2\] inputs"),
        ({"calibration": X / 0}, "calibration holds numbers that are not finite"),
    ],
)
def test_what_is_no_task_is_refused_in_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        task(**changes)


def test_inputs_in_a_list_are_as_many() -> None:
    listed = task(example_inputs=[X[:1], Y[:1]], calibration=[X, Y])
    assert isinstance(listed.example_inputs, tuple)
    assert isinstance(listed.calibration, tuple)
    assert listed.words == "inputs 2, 1"


def test_the_fingerprint_is_of_every_number() -> None:
    other = X.clone()
    other[5, 1] += 1
    found = {
        task(**change).fingerprint
        for change in (
            {},
            {"calibration": other},
            {"batches": [(other, Y)]},
            {"batches": [(X, Y), (X, Y)]},
            {"test": [(X, Y)]},
            {"batches": [{"x": X, "how": "twice"}]},
            {"batches": [{"x": X, "how": "once"}]},
            {"batches": [(X.bfloat16(), Y)]},
        )
    }
    assert len(found) == 8
    assert task().fingerprint == task(name="other").fingerprint


def test_samples_are_copies_and_counted_by_rows() -> None:
    samples = Samples([{"x": X, "n": 3}, {"x": X[:2], "n": 4}])
    for batch in samples:
        batch["x"].zero_()
    assert float(X.sum()) == 66
    assert (len(samples), samples.count) == (2, 8)
    assert Samples(["a", "b", "c"]).count == 3
    images = Samples(ImageBatches(X, torch.arange(6), 4))
    assert [len(labels) for _, labels in images] == [4, 2]
    assert images.count == 6


def test_a_score_is_described_in_the_space_alone() -> None:
    found = find_evaluator("my_task:evaluate", "rmse_told", "min", "px")
    assert (found.score.better, found.score.unit, found.word, found.by_image) == ("min", "px", "rmse told", False)
    assert metrics.metric_named("rmse_told_drop").unit == "px"
    assert find_evaluator("my_task:evaluate", "rmse_told", "min", "px") == found
    with pytest.raises(UsageError, match=r"metric 'rmse_told' is known as 'rmse told' .*give yours another name"):
        find_evaluator("my_task:evaluate", "rmse_told", "max")
    assert find_evaluator("m:f", "accuracy").score.better == "max"
    for name in ("params", "Params", "a b", "test_x", "macs_fraction", "9"):
        with pytest.raises(UsageError, match="name what the evaluator gives in small letters"):
            find_evaluator("m:f", name)
    with pytest.raises(UsageError, match=r"metric = 'loss' is min, in nats; give .* a name of its own"):
        find_evaluator("m:f", "loss", "max")
    with pytest.raises(UsageError, match="direction = 'min': evaluator 'segmentation' has its own"):
        find_evaluator("segmentation", direction="min")
    with pytest.raises(UnknownNameError, match="did you mean 'segmentation'"):
        find_evaluator("segmentatio")


def test_what_a_function_gives_is_looked_at() -> None:
    score = metrics.Metric("away", "away")
    assert measured(score, torch.tensor(2.5)) == {"away": 2.5}
    assert measured(score, {"away": 1, "count": 3}) == {"away": 1.0, "count": 3.0}
    for found, words in (
        (None, "gave no number for 'away' .it returned nothing.: return a float"),
        ("3", "gave no number for 'away'"),
        (True, "gave no number for 'away'"),
        (torch.ones(2), "gave no number for 'away'"),
        ({}, "gave an empty table"),
        ({"count": 3, "away": 1}, r"gave 'count' first, and the score is 'away': set evaluation\.metric = \"count\""),
        ({"away": 1, "params": 3}, "gave 'params': name numbers"),
        ({"away": 1, 3: 3}, "gave 3: name numbers"),
        ({"away": None}, "gave no number for 'away'"),
    ):
        with pytest.raises(UsageError, match=words):
            measured(score, found)


MASKS = st.lists(st.integers(0, 3), min_size=12, max_size=12)


class Says(nn.Module):
    """Gives what it was told to, whatever it sees."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output


def segmentation(output: Any, masks: Tensor) -> dict[str, float]:
    measure = EVALUATORS.get("segmentation").measure
    assert measure is not None
    found = measure(Says(output), [(torch.zeros(len(masks), 1, *masks.shape[1:]), masks)], "cpu")
    assert isinstance(found, dict)
    return found


@given(MASKS, MASKS, st.booleans())
def test_iou_is_that_of_the_definition(truth: list[int], told: list[int], ignoring: bool) -> None:
    masks, answers = torch.tensor(truth).view(1, 3, 4), torch.tensor(told).view(1, 3, 4)
    if ignoring:
        masks[0, 0, :3] = 255
    logits = 9.0 * nn.functional.one_hot(answers, 4).permute(0, 3, 1, 2).float()
    found = segmentation(logits, masks)
    known = masks != 255
    shares = []
    for cls in range(4):
        both = ((masks == cls) & (answers == cls) & known).sum()
        either = (((masks == cls) | (answers == cls)) & known).sum()
        if either:
            shares.append(float(both) / float(either))
    assert found["miou"] == pytest.approx(100 * sum(shares) / len(shares))
    assert found["pixel_accuracy"] == pytest.approx(100 * float((masks == answers)[known].float().mean()))


def test_outputs_of_others_and_of_other_sizes() -> None:
    masks = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
    logits = torch.tensor([[[[5.0, 0.0]], [[0.0, 5.0]]]])  # (1, 2, 1, 2), scaled to (2, 4)
    for output in (logits, {"out": logits, "aux": None}, SimpleNamespace(logits=logits)):
        assert segmentation(output, masks)["miou"] == 100
    with pytest.raises(UsageError, match=r"takes logits \(n, classes, h, w\), and the network gives \(1, 2\)"):
        segmentation(torch.zeros(1, 2), masks)
    with pytest.raises(UsageError, match="masks have classes up to 1, and the network 1 of them"):
        segmentation(torch.zeros(1, 1, 2, 4), masks)
    with pytest.raises(UsageError, match="there is no pixel to look at"):
        segmentation(logits, torch.full((1, 2, 4), 255))
    measure: Callable[..., Any] | None = EVALUATORS.get("segmentation").measure
    assert measure is not None
    with pytest.raises(UsageError, match="segmentation takes batches"):
        measure(Says(logits), [torch.zeros(1)], "cpu")


def test_the_tables_of_batches_add_up() -> None:
    measure = EVALUATORS.get("segmentation").measure
    assert measure is not None
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 4, 4, generator=generator)
    masks = torch.randint(0, 3, (6, 4, 4), generator=generator)

    def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(images.split(size), masks.split(size), strict=True)

    one, many = (measure(nn.Identity(), batches(size), "cpu") for size in (6, 2))
    assert one == pytest.approx(many)
