"""Peers on the same checkpoint, the same images and as many parameters."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from torch import nn

from benchmarks.proof import torch_pruning_rows
from benchmarks.proof.memory import peak
from benchmarks.proof.methods import OURS, RECALIBRATED, Method, Task
from benchmarks.proof.originals import COMPARED, Original, original, parameters
from benchmarks.proof.peers_row import LEFT, TRAINED, Comparison, Row
from benchmarks.proof.peers_text import text
from benchmarks.proof.setting import CALIBRATION, NotRunError, Section, Setting
from core.errors import NeuronMergingError
from core.measure import accuracy_and_loss
from core.models import Recipe
from core.recovery import recover
from core.training import train
from sweep.backend.worker import keep_freed_memory

STEPS = 400
EPOCH = Recipe(epochs=1, batch_size=128, lr=0.02, weight_decay=5e-4, augment=False)


def section(setting: Setting) -> Section:
    """The section of the page."""
    names = COMPARED if setting.full else COMPARED[:3]
    seen = min(setting.images, len(setting.dataset.test))  # data that is missing says so here
    compared = _beside(names, setting)
    measured = (
        f"{len(names)} networks trained on FashionMNIST, {seen:,} test images, {CALIBRATION} training"
        " images to calibrate with (seed 0)"
    )
    return Section(measured, list(text(compared, setting.full)), ["torch-pruning"])


def _beside(names: Sequence[str], setting: Setting) -> list[Comparison]:
    """Every network's comparison, as many at once as there are cores."""
    fresh = replace(setting)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), context) as pool:
        return list(pool.map(compare, names, [fresh] * len(names)))


def compare(name: str, setting: Setting) -> Comparison:
    """All methods on one network."""
    torch.set_num_threads(1)
    keep_freed_memory()
    net = original(name, setting)
    task = Task(net, *setting.calibration())
    OURS[1].make(task, 0.5)  # what only a first call pays for is nobody's
    task.prepared.clear()
    rows = [measured(method, task, setting) for method in methods(net)]
    images, labels = setting.dataset.inputs("test", setting.images)
    return Comparison(name, net.params, net.checksum, accuracy_and_loss(net.model, images, labels)[0], rows)


def methods(net: Original) -> list[Method]:
    """Those that make sense for a network: without batch norms there is nothing to re-calibrate."""
    return [m for m in (*OURS, *torch_pruning_rows.ROWS) if net.normed or not m.name.endswith(RECALIBRATED)]


def measured(method: Method, task: Task, setting: Setting) -> Row:
    """A method on a network; what cannot be run is a row with the reason."""
    images, labels = setting.dataset.inputs("test", setting.images)
    accuracy, left, seconds, most, networks = list[float](), list[float](), 0.0, 0.0, dict[float, nn.Module]()
    try:
        for share in LEFT:
            ratio = method.ratio(task, share)
            with peak() as memory:
                clock = time.perf_counter()
                networks[share] = method.make(task, ratio)
                seconds += time.perf_counter() - clock
            most = max(most, memory.megabytes)
            accuracy.append(accuracy_and_loss(networks[share], images, labels)[0])
            left.append(parameters(networks[share]) / task.original.params)
    except (NotRunError, NeuronMergingError) as error:
        return Row(method.name, method.kind, reason=str(error))
    finally:
        task.prepared.pop(method.name, None)
    row = Row(method.name, method.kind, tuple(accuracy), tuple(left), seconds=seconds, megabytes=most)
    print(f"{task.original.name}: {row.method}: {row.accuracy}", file=sys.stderr, flush=True)
    if setting.full and _trains(method, task.original):
        return _trained(row, networks[TRAINED], task, setting)
    return row


def _trains(method: Method, net: Original) -> bool:
    """One row of a pair is enough: training measures batch norms anew itself."""
    refits = method.kind == "ours"
    return refits or not net.normed or method.name.endswith(RECALIBRATED)


def _trained(row: Row, network: nn.Module, task: Task, setting: Setting) -> Row:
    """The row with what training makes of its smallest network."""
    images, labels = setting.dataset.inputs("test", setting.images)
    for weight in network.parameters():
        weight.requires_grad_(True)
    distilled = recover(network, task.original.model, task.images, "distill", STEPS)
    after = accuracy_and_loss(distilled, images, labels)[0]
    taught = train(network, setting.dataset, EPOCH)
    return replace(row, distilled=after, taught=accuracy_and_loss(taught, images, labels)[0])
