"""Peers on the same checkpoint, the same images and as many parameters."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from benchmarks.proof import torch_pruning_rows
from benchmarks.proof.memory import peak
from benchmarks.proof.methods import OURS, RECALIBRATED, Method, Task
from benchmarks.proof.originals import COMPARED, Original, original, parameters
from benchmarks.proof.peers_row import LEFT, Comparison, Row
from benchmarks.proof.peers_text import text
from benchmarks.proof.setting import CALIBRATION, NotRunError, Section, Setting
from core.errors import NeuronMergingError
from core.measure import accuracy_and_loss
from sweep.backend.worker import keep_freed_memory

Item = TypeVar("Item")
Found = TypeVar("Found")


def section(setting: Setting) -> Section:
    """The section of the page."""
    return of(COMPARED[:3], setting)


def of(names: Sequence[str], setting: Setting) -> Section:
    """A section of some networks."""
    seen = min(setting.images, len(setting.dataset.test))  # data that is missing says so here
    compared = beside(compare, names, setting)
    measured = (
        f"{', '.join(names)}, trained on FashionMNIST, {seen:,} test images, {CALIBRATION} training images to calibrate"
        " with (seed 0)"
    )
    return Section(measured, list(text(compared)), ["torch-pruning"])


def beside(work: Callable[[Item, Setting], Found], items: Sequence[Item], setting: Setting) -> list[Found]:
    """What becomes of each item, as many at once as there are cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(items), os.cpu_count() or 1), context) as pool:
        return list(pool.map(work, items, [replace(setting)] * len(items)))  # a copy without the images


def compare(name: str, setting: Setting) -> Comparison:
    """All methods on one network."""
    task = begin(name, setting)
    net = task.original
    OURS[1].make(task, 0.5)  # what only a first call pays for is nobody's
    task.prepared.clear()
    rows = [measured(method, task, setting) for method in methods(net)]
    images, labels = setting.dataset.inputs("test", setting.images)
    return Comparison(name, net.params, net.checksum, accuracy_and_loss(net.model, images, labels)[0], rows)


def begin(name: str, setting: Setting) -> Task:
    """The task on a network, in a process of its own."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return Task(original(name, setting), *setting.calibration())


def methods(net: Original) -> list[Method]:
    """Those that make sense for a network: without batch norms there is nothing to re-calibrate."""
    return [m for m in (*OURS, *torch_pruning_rows.ROWS) if net.normed or not m.name.endswith(RECALIBRATED)]


def measured(method: Method, task: Task, setting: Setting) -> Row:
    """A method on a network; what cannot be run is a row with the reason."""
    images, labels = setting.dataset.inputs("test", setting.images)
    return judged(method, task, LEFT, lambda network: accuracy_and_loss(network, images, labels)[0])


def judged(method: Method, task: Task, shares: Sequence[float], judge: Callable[[nn.Module], float]) -> Row:
    """A method on a network, at some shares of its parameters; ``judge`` says how good a network is, in percent."""
    accuracy, left, seconds, most = list[float](), list[float](), 0.0, 0.0
    try:
        for share in shares:
            ratio = method.ratio(task, share)
            with peak() as memory:
                clock = time.process_time()
                network = method.make(task, ratio)
                seconds += time.process_time() - clock
            most = max(most, memory.megabytes)
            accuracy.append(judge(network))
            left.append(parameters(network) / task.original.params)
    except (NotRunError, NeuronMergingError) as error:
        return Row(method.name, method.kind, reason=str(error))
    finally:
        task.prepared.pop(method.name, None)
    row = Row(method.name, method.kind, tuple(accuracy), tuple(left), seconds=seconds, megabytes=most)
    print(f"{task.original.name}: {row.method}: {row.accuracy}", file=sys.stderr, flush=True)
    return row
