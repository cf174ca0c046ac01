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

from core.calibration import Scale
from core.measure import latency_ms
from core.records import EvalSplit
from core.shelf import Shelf
from core.workbench import Labelled, Workbench
from sweep.backend.shelf import ShelfPlace


@dataclass(frozen=True)
class SharedBench:
    """A `Workbench` taken apart.

    Attributes:
        skeleton: the original network with its tensors on the meta device (no data).
        tensors: every parameter and buffer by name.
        images: evaluation inputs (N, C, H, W).
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
    """

    skeleton: nn.Module
    tensors: Mapping[str, np.ndarray[Any, Any]]
    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    train_images: np.ndarray[Any, Any]
    original: Mapping[str, float]
    baseline_key: str
    probe: int = 0
    split: EvalSplit = "test"
    test: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None
    scale: Scale | None = None
    collected: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    train_labels: np.ndarray[Any, Any] | None = None
    mirror: bool = False
    shelf: ShelfPlace | None = None
    reference: tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None] = (None, None)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (*self.tensors.values(), self.images, self.labels, self.train_images, *(self.test or ()))
        return sum(array.nbytes for array in (*arrays, *self.collected.values()))

    def with_original(self, original: Mapping[str, float]) -> SharedBench:
        """The same with other metrics of the original network, those that earlier records are relative to."""
        return replace(self, original=dict(original))

    def build(self, device: str = "cpu") -> Workbench:
        """Put the workbench together again, on read-only memory where the device is the CPU."""
        model, images = join(self.skeleton, self.tensors).to(device).eval(), as_tensor(self.images)
        latency = latency_ms(model, images[:1].to(device))
        return Workbench(
            model=model,
            images=images,
            labels=as_tensor(self.labels),
            train_images=as_tensor(self.train_images),
            original={**self.original, "latency_ms": latency},
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
        )

    def _test(self) -> Labelled | None:
        if self.test is None:
            return None
        images, labels = map(as_tensor, self.test)
        return Labelled(images, labels, self._reference(1))

    def _reference(self, which: int) -> Tensor | None:
        found = self.reference[which]
        return None if found is None else as_tensor(found)


def share(bench: Workbench) -> SharedBench:
    """Take ``bench`` apart."""
    skeleton, tensors = split(bench.model)
    return SharedBench(
        skeleton=skeleton,
        tensors=tensors,
        images=bench.images.numpy(),
        labels=bench.labels.numpy(),
        train_images=bench.train_images.numpy(),
        original=dict(bench.original),
        baseline_key=bench.baseline_key,
        probe=bench.probe,
        split=bench.split,
        test=None if bench.test is None else (bench.test.images.numpy(), bench.test.labels.numpy()),
        scale=bench.scale,
        collected={source: images.numpy() for source, images in bench.collected.items()},
        train_labels=None if bench.train_labels is None else bench.train_labels.numpy(),
        mirror=bench.mirror,
        reference=(
            None if bench.reference is None else bench.reference.numpy(),
            None if bench.test is None or bench.test.reference is None else bench.test.reference.numpy(),
        ),
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
