"""What must hold of every network, and is checked by running things: `check(case)` tries all of it on one."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from core.compress import Prepared, Result, compress, prepare
from core.criteria import CRITERIA, by_row
from core.errors import ModelError
from core.export import load, save
from core.graph.attention import SplitAttention
from core.graph.packed import unpack
from tests.conformance.planted import first_ones, plant_copies
from tests.fuzz.masked import masked_outputs
from tests.fuzz.networks import Case

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
REFUSALS = ("no layer whose channels could be removed", "cannot be traced")


@dataclass(frozen=True)
class Failure:
    """One thing that does not hold."""

    seed: int
    names: tuple[str, ...]
    oracle: str
    detail: str

    def __str__(self) -> str:
        return f"seed {self.seed} ({', '.join(self.names)}): {self.oracle}: {self.detail}"


@dataclass
class Report:
    """What came of one network.

    Attributes:
        checked: oracle → how often it judged.
        unjudged: "oracle: why not" → how often.
        cut: per construct, how many channel sets were cut in it or right before it.
        frozen: per construct, how many layers in it or right before it were left alone.
        caught: per construct, how many layers were left alone only because the cut network was found to be wrong.
        refused: why the whole network was refused, or "".
    """

    case: Case
    checked: Counter[str] = field(default_factory=Counter)
    unjudged: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    cut: Counter[str] = field(default_factory=Counter)
    frozen: Counter[str] = field(default_factory=Counter)
    caught: Counter[str] = field(default_factory=Counter)
    refused: str = ""

    def judge(self, oracle: str, problem: str) -> None:
        """Count one check, and write down its failure; "" is none."""
        self.checked[oracle] += 1
        if problem:
            self.failures.append(Failure(self.case.seed, self.case.names, oracle, problem))


@dataclass(frozen=True)
class Trial:
    """One network with what the oracles look at."""

    case: Case
    prepared: Prepared
    rng: random.Random

    def compress(self, **options: Any) -> Result:
        """Compress what was prepared."""
        return compress(self.prepared, self.case.inputs, **options)


def check(case: Case) -> Report:
    """Try every oracle on a network."""
    torch.manual_seed(case.seed)  # some draw random numbers, and what is done with these must not differ each time
    report, before, printed = Report(case), snapshot(case.model), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        prepared = prepared_or_refused(report)
    report.judge("quiet", f"printed: {printed.getvalue()[:100]!r}" if printed.getvalue() else "")
    if prepared is None:
        return report
    trial = Trial(case, prepared, random.Random(f"check {case.seed}"))
    kept, own = snapshot(prepared.channels.graph.model), prepared.channels.graph.model
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for name, oracle in ORACLES.items():
            try:
                for problem in oracle(trial, report):
                    report.judge(name, problem)
            except Exception as error:
                report.judge("no exception", f"{name}: {type(error).__name__}: {str(error)[:300]}")
    report.judge("quiet", f"printed: {printed.getvalue()[:100]!r}" if printed.getvalue() else "")
    report.judge("untouched", changed(before, snapshot(case.model)) or changed(kept, snapshot(own)))
    return report


def prepared_or_refused(report: Report) -> Prepared | None:
    """Prepare the network; a refusal is legitimate where no tracer can follow it, or nothing can be cut."""
    case = report.case
    try:
        return prepare(case.model, case.inputs)
    except ModelError as error:
        report.refused = str(error)
        legitimate = case.untraceable or REFUSALS[1] not in report.refused or not traceable(case)
        known = any(text in report.refused for text in REFUSALS)
        report.judge("refusal", "" if known and legitimate else report.refused[:300])
    except Exception as error:
        report.judge("no exception", f"prepare: {type(error).__name__}: {str(error)[:300]}")
    return None


Oracle = Callable[[Trial, Report], Iterator[str]]


# --- running and comparing ------------------------------------------------------------------------------------


def run(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The outputs of a copy in eval mode, always with the same random numbers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        return copied(model).eval()(*copy.deepcopy(inputs))


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also where a hook has left a computed tensor."""
    computed = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor) and v.grad_fn is not None]
    return copy.deepcopy(model, {id(v): v.detach().clone() for v in computed})


def with_parts_of(original: nn.Module, cut: nn.Module) -> nn.Module:
    """The original, or if its attention is in parts in ``cut`` a copy in which it is, too: it computes the same."""
    parts = {name for name, module in cut.named_modules() if isinstance(module, SplitAttention)}
    if not parts:
        return original
    whole = copied(original)
    unpack(whole, parts)
    return whole


def double(value: Any) -> Any:
    """In float64."""
    if isinstance(value, nn.Module):
        return copied(value).double()
    return pytree.tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, value)


def layout(outputs: Any) -> tuple[str, list[Any]]:
    """Structure, and shape and type of every leaf."""
    leaves, structure = pytree.tree_flatten(outputs)
    kinds = [(tuple(y.shape), y.dtype) if isinstance(y, Tensor) else type(y) for y in leaves]
    return str(structure), kinds


def apart(a: Any, b: Any) -> float:
    """The largest difference of two outputs, relative to the largest number in each leaf; NaN is infinitely far."""
    if layout(a) != layout(b):
        return float("inf")
    found = 0.0
    for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True):
        if not isinstance(x, Tensor):
            found = max(found, 0.0 if x == y else float("inf"))
        elif x.numel():
            x, y = x.detach().double(), y.detach().double()
            difference = float((x - y).abs().max() / x.abs().max().clamp_min(1e-6))
            found = max(found, difference if difference == difference else float("inf"))
    return found


def equal(a: Any, b: Any) -> bool:
    """Whether two outputs are the same to the bit."""
    if layout(a) != layout(b):
        return False
    leaves = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in leaves)


def traceable(case: Case) -> bool:
    """Whether torch can follow the network."""
    for attempt in (
        lambda: fx.symbolic_trace(copied(case.model).eval()),
        lambda: torch.export.export(copied(case.model).eval(), case.inputs, strict=False),
    ):
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # it prints what it could not follow
                attempt()
        except Exception:
            continue
        return True
    return False


# --- the oracles ----------------------------------------------------------------------------------------------


def ratio_zero(trial: Trial, report: Report) -> Iterator[str]:
    """Ratio 0 changes nothing, to the bit."""
    result = trial.compress(ratio=0.0)
    a, b = (run(model, trial.case.inputs) for model in (trial.case.model, result.model))
    yield "" if equal(a, b) else f"off by {apart(a, b):.3g}"


def cut_network(trial: Trial, report: Report) -> Iterator[str]:
    """A cut network is the original without the channels; its layout is the same, and every layer is accounted for."""
    chosen = trial.rng.choice([name for name, part in CRITERIA.items() if not part.needs_labels])
    options = {"ratio": trial.rng.uniform(0.2, 0.8), "criterion": chosen}
    if CRITERIA.get(chosen).needs_calibration:
        options["calibration"] = trial.case.more
    result = trial.compress(decomposition="none", **options)
    account(trial.case, result, report)
    judge_cut(trial.case, result, report)
    yield from ()


def judge_cut(case: Case, result: Result, report: Report) -> None:
    """Compare a cut network (without any merging) with the masked original."""
    report.judge("structure", layout_problem(case, result.model))
    whole = with_parts_of(case.model, result.model)
    report.judge("rows", rows_problem(whole, result))
    original, cut, inputs = double(whole), double(result.model), double(case.inputs)
    expected = masked_outputs(original, cut, lambda model: run(model, inputs))
    off = apart(expected, run(cut, inputs))
    report.judge("cut", "" if off < 1e-5 else f"off by {off:.3g}")


def layout_problem(case: Case, model: nn.Module) -> str:
    """How the outputs' structure, shapes or types differ from the original's."""
    a, b = layout(run(case.model, case.inputs)), layout(run(model, case.inputs))
    return "" if a == b else f"{a} became {b}"[:300]


def rows_problem(original: nn.Module, result: Result) -> str:
    """Whether a producer has lost other rows than the report says."""
    for site in result.sites:
        both: list[Any] = [original, result.model]
        try:
            before, after = (model.get_submodule(site.producers[0]).weight for model in both)
        except AttributeError:
            continue  # a function's parameter
        alone = len(site.producers) == 1 and before.shape[:2] == (site.size, after.shape[1])
        if alone and not torch.equal(before[list(site.kept)], after):
            return f"{site.name} has other rows than those that are reported as kept"
    return ""


def account(case: Case, result: Result, report: Report) -> None:
    """Every layer is in a set, or was left alone for a reason."""
    known = {name for site in result.sites for name in (*site.producers, *site.channel_wise)}
    problems = [f"{name} has no reason" for name, reason in result.skipped.items() if not reason.strip()]
    problems += [f"{name} is in a set and left alone" for name in known & result.skipped.keys()]
    for name, module in case.model.named_modules():
        owners = {name, *(name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1))}
        if isinstance(module, LAYERS) and not owners & (known | result.skipped.keys()):
            problems.append(f"{name} is nowhere")
    report.judge("accounted", "; ".join(problems))
    for i, name in enumerate(case.names):
        inside = (f"layers.{i}.", f"parts.{i}.")
        report.cut[name] += sum(
            len(s.kept) < s.size and any(p.startswith(inside) for p in s.producers) for s in result.sites
        )
        left = [reason for layer, reason in result.skipped.items() if layer.startswith(inside)]
        report.frozen[name] += len(left)
        report.caught[name] += sum(reason.startswith("without some of them") for reason in left)


def planted_copies(trial: Trial, report: Report) -> Iterator[str]:
    """Channels that compute what a kept one computes are merged without loss, where nothing is called approximate."""
    CRITERIA.names()
    CRITERIA._parts.setdefault("first", by_row(first_ones))
    try:
        planned = trial.compress(criterion="first")
        exact = {s.name: s.producers for s in planned.sites if not s.approximate and len(s.kept) < s.size}
        for operation in {op for s in planned.sites for op in s.approximate}:
            report.unjudged[f"planted: {operation} is said to be approximate"] += 1
        if not exact:
            return
        kept = {s.name: s.kept if s.name in exact else tuple(range(s.size)) for s in planned.sites}
        kept |= {g.name: tuple(range(g.size)) for g in trial.prepared.channels.sets if g.name not in kept}
        planted = double(plant_copies(trial.prepared, kept))
        inputs = double(trial.case.inputs)
        sites = [name for producers in exact.values() for name in producers]
        result = compress(planted, inputs, criterion="first", sites=sites)
        off = apart(run(planted, inputs), run(result.model, inputs))
        yield "" if off < 1e-5 else f"off by {off:.3g}"
    finally:
        CRITERIA._parts.pop("first", None)


def least_squares(trial: Trial, report: Report) -> Iterator[str]:
    """Its weights are finite, and on its own images it is no worse than the merge that it starts from.

    The same network is in the original's modes, learns, and comes back from a file.
    """
    case, options = trial.case, {"ratio": trial.rng.uniform(0.2, 0.8)}
    fitted = trial.compress(decomposition="least-squares", calibration=case.more, **options).model
    merged = trial.compress(decomposition="most-similar", options={"threshold": 0.45}, **options).model
    yield from fit_problems(case, fitted, merged)
    report.judge("structure", layout_problem(case, fitted))
    report.judge("modes", mode_problem(with_parts_of(case.model, fitted), fitted))
    if step_problem(case.model, case.inputs):
        report.unjudged["trains: the original does not"] += 1
    else:
        report.judge("trains", step_problem(fitted, case.inputs))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        again = load(save(fitted, Path(folder) / "net.safetensors"), factory=case.rebuild)
    report.judge("export", export_problem(case, fitted, again))


def fit_problems(case: Case, fitted: nn.Module, merged: nn.Module) -> Iterator[str]:
    """Compare two compressed networks with the original on the calibration images."""
    bad = [name for name, p in fitted.named_parameters() if not bool(torch.isfinite(p).all())]
    yield f"{bad} are not finite" if bad else ""
    original = run(case.model, case.more)
    now, was = (error(original, run(model, case.more)) for model in (fitted, merged))
    yield "" if now <= was * (1 + 1e-4) + 1e-10 else f"squared error {now:.6g}, of the merge {was:.6g}"


def error(a: Any, b: Any) -> float:
    """Summed squared difference over all leaves of outputs that are no counts or indices."""
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    real = [(x.double(), y.double()) for x, y in pairs if isinstance(x, Tensor) and x.is_floating_point()]
    return sum(float((x - y).square().sum()) for x, y in real)


def mode_problem(original: nn.Module, model: nn.Module) -> str:
    """Which modules are in another mode than the original's, and which parameters learn that did not."""
    pairs = {name: module.training for name, module in original.named_modules()}
    other = {name: module.training for name, module in model.named_modules()}
    wrong = [name for name in pairs if other.get(name) != pairs[name]]
    if wrong:
        return f"{wrong[:5]} are in another mode"
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    wrong = [name for name, p in original.named_parameters() if learns.get(name) != p.requires_grad]
    return f"{wrong[:5]} learn where they did not, or the other way round" if wrong else ""


def step_problem(model: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Why one step of training fails."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            work = copied(model).train()
            leaves = pytree.tree_leaves(work(*copy.deepcopy(inputs)))
            sum(y.square().sum() for y in leaves if isinstance(y, Tensor) and y.requires_grad).backward()
            torch.optim.SGD([p for p in work.parameters() if p.requires_grad], 1e-3).step()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def export_problem(case: Case, model: nn.Module, again: nn.Module) -> str:
    """How a network that came back from a file differs; its weights must be the same to the bit."""
    state, other = model.state_dict(), again.state_dict()
    wrong = [name for name in state.keys() | other.keys() if not equal(state.get(name), other.get(name))]
    off = apart(run(model, case.inputs), run(again, case.inputs))
    return f"{wrong[:5]} are not the same" if wrong else "" if off < 1e-6 else f"off by {off:.3g}"


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything of a network that must not change, and the global random states."""
    found: dict[str, Any] = {"torch's random state": torch.get_rng_state().numpy().tobytes()}
    found["numpy's random state"] = pickle.dumps(np.random.get_state())
    found["python's random state"] = random.getstate()
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, (bool, int, float, str, tuple, Tensor)):
                found[f"{name}.{key}"] = as_bytes(value)
        for key, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None:
                found[f"{name}.{key}"] = (as_bytes(value), value.requires_grad, id(value))
    return found


def as_bytes(value: Any) -> Any:
    """A tensor's bytes; anything else is itself."""
    if not isinstance(value, Tensor):
        return repr(value)
    stream = io.BytesIO()
    torch.save(value.detach().clone(), stream)
    return stream.getvalue()


def changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What is not as it was."""
    wrong = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    return f"changed: {sorted(wrong)[:5]}" if wrong else ""


ORACLES: dict[str, Oracle] = {
    "ratio 0": ratio_zero,
    "cut": cut_network,
    "planted": planted_copies,
    "least-squares": least_squares,
}
