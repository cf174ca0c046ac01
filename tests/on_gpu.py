"""``pytest -p tests.on_gpu``: whatever a test compresses is compressed on a GPU as well, and must come out the same.

For a machine with a GPU (``TWIN_DEVICE=cpu`` tries the plugin itself without one). A network that does not run there,
because its own code makes tensors on the CPU, is left out. Where two channels are equally good, rounding decides which
one stays, so only results that kept the same channels are compared number by number; how many were, and how far apart
the furthest were, stands at the end of the run.
"""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import core.compress
from core.plain import plain_torch
from core.prepared import Prepared

DEVICE = os.environ.get("TWIN_DEVICE", "cuda")
SAME = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
ELSE = 2e-3
"""Of the largest output, by the type of the weights; what was rounded to TF32 is often further off."""
ALONE = frozenset(
    {
        "test_moments_are_computed_once_and_shared",
        "test_a_trial_is_the_same_from_the_shelf",
        "test_what_a_users_criterion_says_is_not_kept",
        "test_outputs_that_are_not_finite_fail_in_a_race_too",
        "test_a_metric_that_is_not_finite_fails_the_trial",
        "test_inference_mode_and_autocast_around_the_call_change_nothing",
    }
)
"""Tests that count what is computed, break what was prepared, or compare under an autocast that is one device's."""

compress: Callable[..., core.compress.Result] = core.compress.compress
prepare: Callable[..., Prepared] = core.compress.prepare
counts: Counter[str] = Counter()
furthest: list[tuple[float, str]] = []
twins: dict[int, tuple[Prepared, Prepared]] = {}


def moved(value: Any, device: str = DEVICE) -> Any:
    """The same with every tensor on the device."""
    return pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, value)


def twin(model: nn.Module | Prepared, example_inputs: Any, **words: Any) -> core.compress.Result:
    """`compress` on the CPU, and on the GPU; an error where these differ."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0].rpartition("::")[2].partition("[")[0]
    if test in ALONE:
        return compress(model, example_inputs, **words)
    before = None if isinstance(model, Prepared) else on_device(model, example_inputs)
    result = compress(model, example_inputs, **words)
    own = other_prepared(model) if isinstance(model, Prepared) else before
    if own is None:
        counts["not run: the network does not run on the GPU"] += 1
        return result
    try:
        with torch.random.fork_rng():
            found = compress(own, moved(example_inputs), **moved(words))
    except Exception as error:
        raise AssertionError(f"on the GPU: {type(error).__name__}: {error}") from error
    compare(result, found, model.channels.graph.inputs if isinstance(model, Prepared) else example_inputs)
    return result


def other_prepared(given: Prepared) -> Prepared | None:
    """What is prepared on the GPU for a network that was prepared on the CPU."""
    if id(given) not in twins:
        graph = given.channels.graph
        model = on_device(graph.model, graph.inputs)
        if model is None:
            return None
        for name, module in model.named_modules():
            module.training = given.modes.get(name, module.training)
        twins[id(given)] = given, prepare(model, moved(graph.inputs))
    return twins[id(given)][1]


def on_device(model: nn.Module, inputs: Any) -> nn.Module | None:
    """A copy there, if it runs."""
    try:
        own = copy.deepcopy(model).to(DEVICE)
        given = moved(inputs)
        with torch.no_grad(), torch.random.fork_rng():
            copy.deepcopy(own).eval()(*(given if isinstance(given, tuple) else (given,)))
    except Exception:
        return None
    return own


def compare(one: core.compress.Result, other: core.compress.Result, inputs: Any) -> None:
    """Hold two results against each other."""
    if dict(one.skipped).keys() != dict(other.skipped).keys():
        raise AssertionError(f"on the GPU other layers are left alone: {one.skipped} and {other.skipped}")
    places = {str(t.device.type) for t in other.model.state_dict().values() if isinstance(t, Tensor)}
    assert places <= {DEVICE}, f"the network from the GPU is on {places}"
    if [tuple(s.kept) for s in one.sites] != [tuple(s.kept) for s in other.sites]:
        counts["other channels kept"] += 1
        return
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad(), torch.random.fork_rng(), plain_torch():
        wanted, found = (
            [y.detach().double().cpu() for y in pytree.tree_leaves(m(*v)) if isinstance(y, Tensor)]
            for m, v in ((copy.deepcopy(one.model).eval(), given), (copy.deepcopy(other.model).eval(), moved(given)))
        )
    for a, b in zip(wanted, found, strict=True):
        if not a.numel() or not torch.isfinite(a).all():
            continue
        off = float((a - b).abs().max() / a.abs().max().clamp_min(1e-6))
        furthest.append((off, os.environ.get("PYTEST_CURRENT_TEST", "")))
        allowed = max((SAME.get(p.dtype, ELSE) for p in one.model.parameters()), default=ELSE)
        assert off < allowed, f"on the GPU the result is off by {off:.2g}"
    counts["compared"] += 1


def pytest_configure(config: pytest.Config) -> None:
    """Put the twin wherever `compress` is known by name."""
    del config
    core.compress.compress = twin
    for module in list(sys.modules.values()):
        if module is not sys.modules[__name__] and vars(module).get("compress") is compress:
            vars(module)["compress"] = twin


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that ran some of the tests tells the one that gave them out."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["twins"] = dict(counts), sorted(furthest)[-5:]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what it tells."""
    found, far = getattr(node, "workeroutput", {}).get("twins", ({}, []))
    counts.update(found)
    furthest.extend((off, where) for off, where in far)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many were compared."""
    if counts:
        terminalreporter.write_line(f"twins: {dict(counts)}; furthest apart: {sorted(furthest)[-5:]}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Forget prepared networks of a test that is over."""
    yield
    del item
    twins.clear()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
