"""A task of the user's: a network's inputs, whatever they are, and how well it does on them.

    def make() -> Task:
        left, right, labels = load()
        return Task(
            example_inputs=(left[:1], right[:1]),
            calibration=(left[:256], right[:256]),
            batches=[((left[i : i + 100], right[i : i + 100]), labels[i : i + 100]) for i in range(0, 1000, 100)],
            evaluate=evaluate,
        )

``--dataset my_task:make`` takes what it returns where a dataset of images would stand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from core.errors import DataError
from core.evaluators.base import Measure
from core.graph.trace import as_inputs
from core.pixels import Images

Inputs = Tensor | tuple[Tensor, ...]
"""What a network's ``forward`` takes, in order."""


@dataclass(frozen=True)
class Task:
    """Inputs, and what is done with them.

    Attributes:
        example_inputs: one input (1, …), or a tuple of as many as ``forward`` takes.
        calibration: unlabelled inputs (N, …) likewise, for the methods that look at activations; None: there are none.
        batches: what ``evaluate`` is given, batch by batch, in memory: tensors in tuples, lists and dicts.
        evaluate: (network in eval mode, batches, device) -> the score, or name -> number, the score first; None: the
            evaluator that a space names measures.
        test: other batches, which only the front is evaluated on; None: there are none.
        name: what it is called in results.
    """

    example_inputs: Inputs
    calibration: Inputs | None
    batches: Sequence[Any]
    evaluate: Measure | None = None
    test: Sequence[Any] | None = None
    name: str = field(default="task")

    def __post_init__(self) -> None:
        for what in ("batches", "test"):
            found = getattr(self, what)
            if found is None and what == "test":
                continue
            if isinstance(found, str | bytes) or not hasattr(found, "__len__") or not hasattr(found, "__getitem__"):
                raise DataError(f"{what} must be a list, which is gone through more than once: list(loader) makes one")
            if not len(found):
                raise DataError(f"{what} is empty: give one batch at least")
        for what in ("example_inputs", "calibration"):
            if isinstance(given := getattr(self, what), list):
                object.__setattr__(self, what, tuple(given))
        example = _inputs("example_inputs", self.example_inputs)
        if self.calibration is None:
            return
        calibration = _inputs("calibration", self.calibration)
        shapes = [[tuple(x.shape[1:]) for x in inputs] for inputs in (example, calibration)]
        if shapes[0] != shapes[1]:
            raise DataError(f"calibration has inputs {shapes[1]}, and example_inputs {shapes[0]}, one of a batch each")
        if len({len(x) for x in calibration}) != 1 or not len(calibration[0]):
            raise DataError(
                f"calibration has {[len(x) for x in calibration]} inputs; as many of each, and one at least"
            )

    @property
    def labelled(self) -> bool:
        """Whether a network can be trained on it: it cannot."""
        return False

    @property
    def has_own_test(self) -> bool:
        """Whether the front is evaluated on other batches than the search."""
        return self.test is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input, the first of several."""
        return tuple(_inputs("example_inputs", self.example_inputs)[0].shape[1:])

    @property
    def note(self) -> str:
        """What a reader of its figures must know."""
        return ""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any of its numbers."""
        digest = hashlib.sha256()
        for part in (self.example_inputs, self.calibration, list(self.batches), list(self.test or ())):
            leaves, structure = pytree.tree_flatten(part)
            digest.update(str(structure).encode())
            for leaf in leaves:
                digest.update(_bytes(leaf))
        return digest.hexdigest()[:16]

    def digest(self, split: str) -> str:
        """What changes with the data of a split; of a task, with all of it."""
        del split
        return self.fingerprint

    @property
    def words(self) -> str:
        """What the network takes, in words."""
        return "inputs " + ", ".join("x".join(map(str, x.shape[1:])) for x in as_inputs(self.example_inputs))

    def named(self, name: str) -> Task:
        """The same under another name."""
        return replace(self, name=name)

    def part(self, split: str) -> Sequence[Any]:
        """The batches that a split means: ``test`` those of the front, where there are some."""
        return self.test if split == "test" and self.test is not None else self.batches


def _inputs(what: str, found: Any) -> tuple[Tensor, ...]:
    inputs = tuple(found) if isinstance(found, tuple | list) else (found,)
    for x in inputs:
        if not isinstance(x, Tensor) or not x.dim():
            kind = "a number" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise DataError(
                f"{what} holds {kind}: give a tensor (N, …), or a tuple of them, one per argument of forward"
            )
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise DataError(f"{what} holds numbers that are not finite")
    return inputs


def _bytes(leaf: Any) -> bytes:
    if isinstance(leaf, Tensor):
        values = leaf.detach().cpu().contiguous()
        return str((values.dtype, tuple(values.shape))).encode() + values.view(-1).view(torch.uint8).numpy().tobytes()
    return repr(leaf).encode()


class Batches(Protocol):
    """What can be gone through more than once."""

    def __len__(self) -> int:
        """How many batches."""
        ...

    def __getitem__(self, number: int, /) -> Any:
        """One of them."""
        ...


@dataclass(frozen=True)
class Samples:
    """What an evaluator that measures goes through, any number of times; each time in memory of its own.

    Attributes:
        batches: as the task has them; memory that must not be written to is safe from networks that work in place.
    """

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (pytree.tree_map(_copied, self.batches[number]) for number in range(len(self)))

    @property
    def every(self) -> list[Any]:
        """The batches, as they are kept."""
        return [self.batches[number] for number in range(len(self))]

    @property
    def count(self) -> int:
        """How many there are: rows of each batch's first tensor, or batches where there is none."""
        return sum(_rows(self.batches[number]) for number in range(len(self)))


@dataclass(frozen=True)
class ImageBatches:
    """Images (N, C, H, W) with their labels (N,) as batches ``(images, labels)``.

    Attributes:
        images: inputs, or stored ones that become some.
        labels: of them.
        size: of a batch.
    """

    images: Images
    labels: Tensor
    size: int

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        some = slice(number * self.size, (number + 1) * self.size)
        return self.images[some], self.labels[some]


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _rows(batch: Any) -> int:
    tensors = (leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())
    return len(next(tensors, ((),)))
