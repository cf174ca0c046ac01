"""A cut network beside the original on calibration images: what its layers have lost, and new weights for them.

Whatever reads or carries cut channels is compared with the original there and then; a sequential method gives it new
weights the moment its inputs are known. No gradient.

Images whose values fit into `LIVE` bytes run together, once. More of them run in batches that wait at each layer to
refit until all have been there; those that do not fit while they wait are run anew from the images, as often as
needed. So memory does not grow with the number of images, and every image is seen as often as any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core.channels import Channels
from core.decompositions.base import Decomposition
from core.errors import ModelError, first_line
from core.graph.trace import GraphRunner, as_inputs, twin
from core.moments import Moments, precise
from core.readers import Reader, find_readers
from core.rectified import Rectified
from core.sidebyside import Pair, SideBySide, Weigher, reads_cut
from core.slices import refitted
from core.surgery import assign, kept_positions, parameter
from core.windows import as_matrix, as_weight, by_group, is_faithful, patches

LIVE = 2_000_000_000
"""Bytes of activations, of both networks, that are held at a time."""


@dataclass(frozen=True)
class Refit:
    """What became of a cut network on the calibration images.

    Attributes:
        model: the network, with new weights if the method is sequential.
        lost: per layer that reads or carries cut channels, the share of its outputs' variance lost (0 = none).
        notes: per layer whose weights a sequential method left as they were, why.
    """

    model: nn.Module
    lost: dict[str, float]
    notes: dict[str, str]


def refit(
    model: nn.Module,
    channels: Channels,
    gone: Tensor,
    method: Decomposition,
    calibration: Any,
    queries: Mapping[str, Tensor] | None = None,
    terms: Mapping[str, int] | None = None,
) -> Refit:
    """Compare a cut network with the original on calibration images; refit it if the method is sequential.

    A refitted network whose outputs on these images are further from the original's than they were before is not
    returned: the one before is, and says so.

    Args:
        model: the network after the cut; the weights in it may be replaced.
        channels: of the original network.
        gone: channel numbers that were removed.
        method: if it is sequential, its ``solve`` gives each layer that reads or carries cut channels new weights.
        calibration: unlabelled inputs (N, …), a tuple of them for a network with several inputs.
        queries: layer that writes an attention's queries -> Z (n, k), by which those of the cut network are mixtures of
            the original's (`core.pairs`).
        terms: layer that will be decoupled -> T: its slices have rank T and are to keep it (`core.slices`). All layers
            of the network are refitted then, by a sequential method.
    """
    inputs = as_inputs(calibration)
    before = twin(model) if method.sequential else model  # parameters are replaced, never written to
    try:
        fitter = Fitter(model, channels, gone, method, queries, terms)
        stretch = method.sequential and len(inputs) == 1 and inputs[0].is_floating_point()
        stretch = stretch and fitter.flat
        error, was = fitter.run(inputs, before, stretch=stretch)
        lost = fitter.pair.lost()
        if not method.sequential or all(now <= then < math.inf for now, then in zip(error, was, strict=True)):
            return Refit(model, lost, fitter.notes)
        plain = Fitter(before, channels, gone, Decomposition(), queries)
        plain.run(inputs, before)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return _without(before, channels, inputs, first_line(error))
    note = "refitting took the outputs further from the original's: the weights stay as merged"
    return Refit(before, plain.pair.lost(), dict.fromkeys(lost, note))


def _without(model: nn.Module, channels: Channels, inputs: tuple[Any, ...], reason: str) -> Refit:
    """Nothing new, where two networks could not be run side by side and the images are not to blame.

    Raises:
        ModelError: the original does not run on the images either.
    """
    try:
        twin(channels.graph.model)(*(x[: images_at_a_time(channels, inputs)] for x in inputs))
    except Exception as error:
        raise ModelError(
            f"the network does not run on calibration images of shape {tuple(inputs[0].shape)}: {first_line(error)}"
        ) from None
    readers = dict.fromkeys(name for s in channels.sets for name in s.consumers)
    return Refit(model, {}, dict.fromkeys(readers, f"not refitted, since the graph does not run once cut: {reason}"))


def squared_errors(originals: Any, outputs: Any) -> tuple[float, float]:
    """Summed squared difference of two networks' outputs: of those that are real, and of counts, indices and masks."""
    found = {True: 0.0, False: 0.0}
    for a, b in zip(pytree.tree_leaves(originals), pytree.tree_leaves(outputs), strict=True):
        if isinstance(a, Tensor):
            found[a.is_floating_point()] += float((a.double() - b.double()).square().sum())
    return found[True], found[False]


def images_at_a_time(channels: Channels, inputs: tuple[Any, ...]) -> int:
    """How many images run together: all, if what two such networks hold of them fits, else a quarter of what does.

    A network that does not run on one image alone is given all of them.
    """
    count, graph = len(inputs[0]), channels.graph
    run = Weigher(graph.traced, twin(graph.model), graph.unbiased)
    try:
        run.run(*(x[:1] for x in inputs))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return count
    most = 2 * max(1, run.most)
    return count if most * count <= LIVE else max(1, LIVE // (4 * most))


class Fitter:
    """Runs a cut network beside the original, and gives its layers new weights if the method is sequential."""

    def __init__(
        self,
        model: nn.Module,
        channels: Channels,
        gone: Tensor,
        method: Decomposition,
        queries: Mapping[str, Tensor] | None = None,
        terms: Mapping[str, int] | None = None,
    ) -> None:
        graph = channels.graph
        self.method, self.channels, self.gone, self.refitted = method, channels, gone, model
        self._terms = {graph.canonical(f"{name}.weight"): count for name, count in (terms or {}).items()}
        original, compressed = twin(graph.model), twin(model)  # run, so that what the network counts stays as it is
        layers = [step for step in graph.steps.values() if step.layer is not None]
        self._steps = layers if terms else [step for step in layers if reads_cut(channels, gone, step)]
        sought = self._steps if method.sequential else []
        found = find_readers(channels, sought, GraphRunner(graph.traced, original))
        self.readers, order, self.notes = found
        self.pair = Pair(channels, gone, original, compressed, order, queries or {})

    @cached_property
    def flat(self) -> bool:
        """Whether all layers to refit are linear layers on (N, in): calibration images are few for them."""
        axes = self.channels.graph.channel_axis
        return all(s.layer is not None and s.layer.linear and axes[s.node] == 1 for s in self._steps)

    def run(
        self, inputs: tuple[Any, ...], before: nn.Module, *, stretch: bool = False
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Run both networks on all images, and refit.

        Args:
            inputs: one tensor (N, …) per argument of the network.
            before: what the cut network was, to be judged by.
            stretch: whether to fit on what the method makes of the images.

        Returns:
            How far the outputs are from the original's, now and before, see `squared_errors`.
        """
        fitted = tuple(self.method.stretch(x) for x in inputs) if stretch else inputs
        batches = [SideBySide(self.pair, part) for part in self._batches(fitted)]
        for reader in self.readers:
            moments = self._moments(reader, batches)
            if moments is not None:
                self._solve(reader, moments, batches)
        originals, then = twin(self.channels.graph.model), twin(before)
        now, was = [], []
        for batch in batches:
            wanted, outputs = batch.run_to_the_end()
            batch.restart()
            if self.method.sequential and not stretch:
                now.append(squared_errors(wanted, outputs))
                was.append(squared_errors(wanted, then(*batch.inputs)))
        if stretch:  # the network may depend on how many images it sees at a time
            for part in self._batches(inputs):
                wanted = originals(*part)
                now.append(squared_errors(wanted, twin(self.refitted)(*part)))
                was.append(squared_errors(wanted, then(*part)))
        return _sum(now), _sum(was)

    def _batches(self, inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        step = images_at_a_time(self.channels, inputs)
        return [tuple(x[i : i + step] for x in inputs) for i in range(0, len(inputs[0]), step)]

    def _place(self, reader: Reader) -> int:
        return next(i for i, nodes in enumerate(self.pair.order) if nodes[0] is reader.nodes[0])

    def _visited(self, place: int, batches: list[SideBySide]) -> Iterator[SideBySide]:
        """The batches, each where a layer reads; of several only as many stay there as may be held."""
        kept = 0
        for batch in batches:
            batch.run_until(place)
            yield batch
            if len(batches) > 1:  # both what has been here and what still waits before it may be held
                size = batch.held()
                kept += size
                if kept > LIVE // 2:
                    kept -= size
                    batch.restart()

    def _moments(self, reader: Reader, batches: list[SideBySide]) -> Moments | None:
        """Of all that a layer reads and should give; None where its weight does not say what it gives."""
        layer = reader.layer
        weight, whole = parameter(self.pair.compressed, layer.weight), parameter(self.pair.original, layer.weight)
        assert weight is not None
        assert whole is not None
        bias, _ = self.channels.constant_of(layer)
        fixed = parameter(self.pair.compressed, layer.bias) if layer.bias and not bias else None
        depthwise = reader.calls[0].kind == "depthwise"
        groups = len(weight) if depthwise else layer.groups
        moments = Moments(centred=bool(bias), flat=self.flat)
        for batch in self._visited(self._place(reader), batches):
            for step, window in zip(reader.calls, reader.windows, strict=True):
                if batch is batches[0]:
                    matrix = as_matrix(whole, layer, len(whole) if depthwise else layer.groups)
                    own = parameter(self.pair.original, layer.bias)
                    if not is_faithful(window, batch.env[step.inputs[0]], matrix, own, batch.env[step.node]):
                        self.notes[layer.name] = (
                            f"{layer.name} does not compute what its weight says: it keeps the merged weights"
                        )
                        return None
                target = batch.target(step)
                if fixed is not None:  # a bias that belongs to others too stays what it is
                    target = target - (fixed.view(-1, *[1] * len(window.kernel_size)) if window.kernel_size else fixed)
                for rows, outputs in patches(window, batch.compressed.env[step.inputs[0]], target):
                    moments.add(by_group(rows, groups), by_group(outputs, groups))
        return moments

    def _solve(self, reader: Reader, moments: Moments, batches: list[SideBySide]) -> None:
        layer = reader.layer
        weight = parameter(self.pair.compressed, layer.weight)
        assert weight is not None
        groups = len(weight) if reader.calls[0].kind == "depthwise" else layer.groups
        bias, sign = self.channels.constant_of(layer)
        matrix = as_matrix(weight, layer, groups)
        terms = self._terms.get(self.channels.graph.canonical(layer.weight), 0)

        def fit(moments: Moments) -> tuple[Tensor, Tensor]:
            v, b = self.method.solve(moments, matrix)
            return refitted(self.method.solve, moments, v, math.prod(weight.shape[2:]), terms) if terms else (v, b)

        v, b = fit(moments)
        for _ in range(self.method.rectified_fits if bias else 0):
            asked = self._rectified(reader, moments, batches, v, b)
            if asked is None:
                break
            moments = asked
            v, b = fit(moments)
        level = self._level(bias, sign, b.flatten()).to(weight.dtype)
        for model in (self.pair.compressed, self.refitted):
            assign(model, layer.weight, as_weight(v, layer, weight.shape).to(weight.dtype))
            assign(model, bias, level)

    def _rectified(
        self, reader: Reader, moments: Moments, batches: list[SideBySide], v: Tensor, b: Tensor
    ) -> Moments | None:
        """Of what to ask for after a fit v (groups, out, in), b (groups, out); None where no ReLU says so."""
        found, groups = moments.without_targets(), len(v)
        for batch in self._visited(self._place(reader), batches):
            for step, window in zip(reader.calls, reader.windows, strict=True):
                behind = Rectified.behind(batch, step.node)
                if behind is None:
                    return None
                wanted = behind.beside(batch.target(step), self.channels.graph.channel_axis[step.node])
                for rows, three in patches(window, batch.compressed.env[step.inputs[0]], wanted):
                    x = by_group(precise(rows), groups)
                    given = x @ v.mT.to(x) + b[:, None].to(x)
                    asked = behind.asked(given.transpose(0, 1).flatten(1), three.to(x))
                    found.add_targets(x, by_group(asked, groups))
        return found

    def _level(self, name: str, sign: int, constant: Tensor) -> Tensor:
        """What the bias ``name`` (or for sign −1 the running mean) has to be, for a layer to add ``constant``."""
        if sign > 0:
            return constant
        graph = self.channels.graph
        atoms, mean = graph.atoms.axes[graph.canonical(name), 0], parameter(self.pair.original, name)
        assert mean is not None
        return mean[kept_positions(self.channels, atoms, self.gone).to(mean.device)] - constant


def _sum(parts: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(real for real, _ in parts), sum(other for _, other in parts)
