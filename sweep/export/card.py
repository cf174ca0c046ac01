"""What goes beside a network's weights: a model card (README.md) and a config.json, as on Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.metrics import METRICS, SIZES
from core.models import is_pretrained, origin
from search_spaces import SearchSpace
from sweep.export.rebuild import Rebuilt
from sweep.storage.reader import StoredSweep


def config_of(rebuilt: Rebuilt, sweep: StoredSweep) -> dict[str, Any]:
    """Everything that rebuilds the network, plain JSON."""
    record = rebuilt.record
    return {
        "format": "neuron-merging-sweep/export-1",
        "sweep": sweep.info.name,
        "key": record.key,
        "original": origin(rebuilt.made.model),
        "channels": {site.name: {"kept": len(site.kept), "of": site.size} for site in rebuilt.made.result.sites},
        "configuration": record.config,
        "split": record.split,
        "metrics": record.metrics,
        "notes": rebuilt.made.notes,
        "versions": dict(sweep.info.state.versions),
    }


def card_of(rebuilt: Rebuilt, sweep: StoredSweep, space: SearchSpace) -> str:
    """The model card in Markdown."""
    record, metrics, original = rebuilt.record, rebuilt.record.metrics, sweep.info.state.original
    model, dataset = space.baseline.model, space.baseline.dataset
    trained = record.recovery.get("method")
    how = f"then trained by {trained}" if trained else "without any training"
    weights = "those of the weights' publisher" if is_pretrained(model) else "not known"
    lines = [
        "---",
        "library_name: pytorch",
        "tags:",
        "- neuron-merging",
        "- compression",
        f"datasets:\n- {json.dumps(dataset)}",
        "---",
        "",
        f"# {model} on {dataset}, compressed to {100 * metrics['params_fraction']:.1f} % of its parameters",
        "",
        f"Channels of `{model}` were removed and folded into the layers that read them, {how}:"
        f" `{record.decomposition}`, channels chosen by `{record.criterion}`.",
        "",
        "| | original | compressed |",
        "|---|---|---|",
        _row(f"accuracy on the {record.split} split (%)", original.get("accuracy"), metrics["accuracy"], "{:.2f}"),
    ]
    if "test_accuracy" in metrics:
        tested = original.get("test_accuracy")
        lines.append(_row("accuracy on the test split (%)", tested, metrics["test_accuracy"], "{:.2f}"))
    known = {name: METRICS[name] for name in SIZES if METRICS[name].known}
    lines += [_row(m.title, original.get(name), metrics[name], m.form) for name, m in known.items()]
    lines += [
        _row("latency of one image, this machine, one thread (ms)", *rebuilt.latency, "{:.3f}"),
        "",
        "| channels of | kept | of |",
        "|---|---|---|",
        *(f"| `{site.name}` | {len(site.kept)} | {site.size} |" for site in rebuilt.made.result.sites),
        "",
        *(f"- {note}" for note in rebuilt.made.notes),
        f"- trial `{record.key}` of sweep `{sweep.info.name}`; rebuilt from its record and measured again:"
        f" {rebuilt.accuracy:.2f} %",
        f"- licence of the weights: {weights}",
        "",
        "Made by:",
        "",
        "```",
        f"sweep export {sweep.info.name} --trial {record.key}",
        "```",
        "",
        "Read `model.safetensors` with `core.export.load`, `model.pt2` with `torch.export.load`, `model.onnx` with"
        " onnxruntime; images are normalised as the original's.",
        "",
        "```json",
        json.dumps(record.config, indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def metadata_of(rebuilt: Rebuilt, sweep: StoredSweep) -> Mapping[str, Any]:
    """What travels inside the weights' file."""
    found = config_of(rebuilt, sweep)
    return {name: found[name] for name in ("sweep", "key", "configuration", "split", "metrics")}


def _row(title: str, before: float | None, after: float, form: str) -> str:
    return f"| {title} | {'–' if before is None else form.format(before)} | {form.format(after)} |"
