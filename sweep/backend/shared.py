"""What all workers share, in a form that Ray's object store hands out without a copy: numpy arrays.

Ray maps arrays into every worker's memory read-only, so N workers on a node hold one copy of the images and of the
original weights. Nothing may write to them: `core` never changes the original model nor its inputs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core.calibration import Scale
from core.evaluators import USUAL, Evaluator, Measure, function_of
from core.measure import latency_ms
from core.pixels import Images, Mapped, Pixels
from core.records import EvalSplit, Precision
from core.shelf import Shelf
from core.tasks import Samples
from core.workbench import Labelled, Workbench
from sweep.backend.shelf import ShelfPlace


@dataclass(frozen=True)
class Packed:
    """Images taken apart.

    Attributes:
        values: inputs, or stored images, or the file that these are in.
        scale: how stored ones become inputs; None: they are inputs.
        rows: (N,) which of them, in which order; None: all.
    """

    values: np.ndarray[Any, Any] | Mapped
    scale: Scale | None = None
    rows: np.ndarray[Any, Any] | None = None

    @classmethod
    def of(cls, images: Images) -> Packed:
        """Take ``images`` apart."""
        if isinstance(images, Tensor):
            return cls(images.numpy())
        values = images.source if isinstance(images.source, Mapped) else images.source.numpy()
        return cls(values, Scale(images.mean, images.std), None if images.rows is None else images.rows.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes that travel."""
        rows = 0 if self.rows is None else self.rows.nbytes
        return rows + (0 if isinstance(self.values, Mapped) else self.values.nbytes)

    def unpacked(self) -> Images:
        """Undo `of`, on read-only memory."""
        values = self.values if isinstance(self.values, Mapped) else as_tensor(self.values)
        if self.scale is None:
            assert isinstance(values, Tensor)
            return values
        rows = None if self.rows is None else as_tensor(self.rows)
        return Pixels(values, self.scale.mean, self.scale.std, rows)

    def carried(self) -> Packed:
        """The same for machines that have not the file: what is in it travels."""
        return replace(self, values=self.values.open().numpy()) if isinstance(self.values, Mapped) else self


@dataclass(frozen=True)
class Array:
    """Stands for a tensor among other things."""

    values: np.ndarray[Any, Any]


def arrays_of(found: Any) -> Any:
    """Tensors in tuples, lists and dicts as arrays; those of types that numpy has not stay tensors."""

    def one(leaf: Any) -> Any:
        plain = isinstance(leaf, Tensor) and leaf.dtype != torch.bfloat16
        return Array(leaf.detach().cpu().numpy()) if plain else leaf

    return pytree.tree_map(one, found)


def tensors_of(found: Any) -> Any:
    """Undo `arrays_of`, on read-only memory."""
    return pytree.tree_map(lambda leaf: as_tensor(leaf.values) if isinstance(leaf, Array) else leaf, found)


@dataclass(frozen=True)
class OfTask:
    """What a task of the user's brings, with arrays for tensors.

    Attributes:
        inputs: an example of what the network takes.
        pool: what calibration draws from, of each input.
        batches: what it is evaluated on.
        test: likewise on the test split, if that is another one.
    """

    inputs: Any
    pool: Any
    batches: Any
    test: Any

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        leaves = pytree.tree_leaves([self.inputs, self.pool, self.batches, self.test])
        return sum(int(leaf.values.nbytes) for leaf in leaves if isinstance(leaf, Array))


@dataclass(frozen=True)
class SharedBench:
    """A `Workbench` taken apart.

    Attributes:
        skeleton: the original network with its tensors on the meta device (no data).
        tensors: every parameter and buffer by name.
        images: evaluation images (N, C, H, W).
        labels: (N,) of them.
        train_images: (M, C, H, W).
        original: metrics of the original network, measured once.
        baseline_key: identity of the original network.
        probe: how many of the first images are a random draw, for racing (`core.race`).
        split: which part of the dataset ``images`` are.
        test: images and labels of the test split, where ``images`` are another one.
        scale: how images are normalised.
        collected: calibration source -> what it draws from, read where the sweep was started.
        train_labels: (M,) of the training images, for methods that learn from labels.
        mirror: whether a mirror image keeps its label.
        shelf: where workers keep what no trial changes; None: nowhere.
        reference: log-probabilities that are wanted of the images, and of the test split's.
        scored: what trials are scored by.
        measure_by: what measures a network, where it is neither registered nor imported by its name.
        task: what stands for images; None: there are some.
        autocast: what evaluations' forward passes compute in.
    """

    skeleton: nn.Module
    tensors: Mapping[str, np.ndarray[Any, Any]]
    images: Packed
    labels: np.ndarray[Any, Any]
    train_images: Packed
    original: Mapping[str, float]
    baseline_key: str
    probe: int = 0
    split: EvalSplit = "test"
    test: tuple[Packed, np.ndarray[Any, Any]] | None = None
    scale: Scale | None = None
    collected: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    train_labels: np.ndarray[Any, Any] | None = None
    mirror: bool = False
    shelf: ShelfPlace | None = None
    reference: tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None] = (None, None)
    scored: Evaluator = USUAL
    measure_by: Measure | None = None
    task: OfTask | None = None
    autocast: Precision | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (*self.tensors.values(), self.images, self.labels, self.train_images, *(self.test or ()))
        total = sum(array.nbytes for array in (*arrays, *self.collected.values()))
        return int(total) + (0 if self.task is None else self.task.nbytes)

    @property
    def has_test(self) -> bool:
        """Whether the front is evaluated on other samples than the search."""
        return self.test is not None or (self.task is not None and self.task.test is not None)

    def with_original(self, original: Mapping[str, float]) -> SharedBench:
        """The same with other metrics of the original network, those that earlier records are relative to."""
        return replace(self, original=dict(original))

    def carried(self) -> SharedBench:
        """The same for machines that do not share this one's files."""
        test = None if self.test is None else (self.test[0].carried(), self.test[1])
        return replace(self, images=self.images.carried(), train_images=self.train_images.carried(), test=test)

    def build(self, device: str = "cpu") -> Workbench:
        """Put the workbench together again, on read-only memory where the device is the CPU."""
        model, images = join(self.skeleton, self.tensors).to(device).eval(), self.images.unpacked()
        scored = self.scored
        bench = Workbench(
            model=model,
            images=images,
            labels=as_tensor(self.labels),
            train_images=self.train_images.unpacked(),
            original=dict(self.original),
            baseline_key=self.baseline_key,
            device=device,
            probe=self.probe,
            split=self.split,
            test=self._test(),
            scale=self.scale,
            collected={source: as_tensor(array) for source, array in self.collected.items()},
            train_labels=None if self.train_labels is None else as_tensor(self.train_labels),
            mirror=self.mirror,
            shelf=Shelf() if self.shelf is None else self.shelf.open(),
            reference=self._reference(0),
            scored=scored,
            autocast=self.autocast,
        )
        if not scored.by_image:
            measure = self.measure_by or function_of(scored)
            bench = bench.measured_by(measure) if self.task is None else self._of_task(bench, self.task, measure)
        bench.original = {**bench.original, "latency_ms": latency_ms(model, bench.example)}
        return bench

    @staticmethod
    def _of_task(bench: Workbench, task: OfTask, measure: Measure) -> Workbench:
        test = None if task.test is None else Samples(tensors_of(task.test))
        return replace(
            bench,
            measure_by=measure,
            inputs=tensors_of(task.inputs),
            train_images=tensors_of(task.pool),
            samples=Samples(tensors_of(task.batches)),
            test_samples=test,
        )

    def _test(self) -> Labelled | None:
        if self.test is None:
            return None
        images, labels = self.test
        return Labelled(images.unpacked(), as_tensor(labels), self._reference(1))

    def _reference(self, which: int) -> Tensor | None:
        found = self.reference[which]
        return None if found is None else as_tensor(found)


def share(bench: Workbench) -> SharedBench:
    """Take ``bench`` apart."""
    skeleton, tensors = split(bench.model)
    task, pool = None, bench.train_images
    if bench.inputs is not None:
        assert bench.samples is not None, "a task has batches"
        test = None if bench.test_samples is None else arrays_of(bench.test_samples.every)
        batches = arrays_of(bench.samples.every)
        task, pool = OfTask(arrays_of(bench.inputs), arrays_of(pool), batches, test), torch.empty(0)
    assert not isinstance(pool, tuple), "only a task has several inputs"
    return SharedBench(
        skeleton=skeleton,
        tensors=tensors,
        images=Packed.of(bench.images),
        labels=bench.labels.numpy(),
        train_images=Packed.of(pool),
        original=dict(bench.original),
        baseline_key=bench.baseline_key,
        probe=bench.probe,
        split=bench.split,
        test=None if bench.test is None else (Packed.of(bench.test.images), bench.test.labels.numpy()),
        scale=bench.scale,
        collected={source: images.numpy() for source, images in bench.collected.items()},
        train_labels=None if bench.train_labels is None else bench.train_labels.numpy(),
        mirror=bench.mirror,
        reference=(
            None if bench.reference is None else bench.reference.numpy(),
            None if bench.test is None or bench.test.reference is None else bench.test.reference.numpy(),
        ),
        scored=bench.scored,
        measure_by=None if bench.scored.own else bench.measure_by,
        task=task,
        autocast=bench.autocast,
    )


def split(model: nn.Module) -> tuple[nn.Module, dict[str, np.ndarray[Any, Any]]]:
    """Return the model without data, and its parameters and buffers by name."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return copy.deepcopy(model).to("meta"), arrays


def join(skeleton: nn.Module, arrays: Mapping[str, np.ndarray[Any, Any]]) -> nn.Module:
    """Undo `split`: a model on the arrays' own memory."""
    model = copy.deepcopy(skeleton)
    for name, array in arrays.items():
        path, _, leaf = name.rpartition(".")
        owner, tensor = model.get_submodule(path), as_tensor(array)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[leaf] = tensor
    return model


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the array's memory; torch's warning that it must not be written to is heeded, not shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
