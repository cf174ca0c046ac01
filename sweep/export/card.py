"""What goes beside a network's weights: a model card (README.md) and a config.json, as on Hugging Face."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from core.datasets import ImageDataset
from core.evaluators import Evaluator
from core.graph.trace import as_inputs
from core.metrics import METRICS, SIZES, TEST
from core.models import licence_of, origin
from core.parts import is_own_code
from core.tasks import Task
from core.timing import TIMED_BATCH
from sweep.export.again import command_of
from sweep.export.rebuild import Rebuilder, Rebuilt, parsed

FORMAT = "neuron-merging-sweep/export-1"
"""By this a ``config.json`` is known to be ours."""
CARRIED = ("sweep", "key", "configuration", "split", "metrics", "images")
"""What of it travels inside the weights' file."""
ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
(logits,) = session.run(None, {{"images": images}})  # float32 (N, {shape}), normalised as below"""
PT2 = """\
import torch

logits = torch.export.load("{file}").module()(images)  # float32 (N, {shape}), normalised as below"""
SAFETENSORS = """\
from core.export import load  # of neuron-merging-sweep

logits = load("{file}"{factory})(images)  # float32 (N, {shape}), normalised as below"""
CODE: Mapping[str, str] = {"safetensors": SAFETENSORS, "pt2": PT2, "onnx": ONNX}


def config_of(rebuilt: Rebuilt, rebuilder: Rebuilder) -> dict[str, Any]:
    """Everything that rebuilds the network and that its user has to know, plain JSON."""
    record, sweep, data = rebuilt.record, rebuilder.sweep, rebuilder.baseline.dataset
    original, compressed = rebuilt.timing
    return {
        "format": FORMAT,
        "sweep": sweep.info.name,
        "key": record.key,
        "original": origin(rebuilt.made.model),
        "baseline": rebuilder.space.baseline.model_dump(mode="json"),
        "channels": {site.name: {"kept": len(site.kept), "of": site.size} for site in rebuilt.made.result.sites},
        "configuration": record.config,
        "split": record.split,
        "metrics": record.metrics,
        "original_metrics": sweep.info.state.original,
        "latency_ms": {"original": original.one, "compressed": compressed.one, "threads": 1},
        "batch_latency_ms": {"original": original.batch, "compressed": compressed.batch, "images": TIMED_BATCH},
        **_of_images(data),
        "notes": rebuilt.made.notes,
        "versions": dict(sweep.info.state.versions),
    }


def _of_images(data: ImageDataset | Task) -> dict[str, Any]:
    """What a network takes, and what its outputs are."""
    if isinstance(data, Task):
        return {"inputs": [list(x.shape[1:]) for x in as_inputs(data.example_inputs)]}
    return {
        "images": {
            "shape": data.shape,
            "mean": data.mean,
            "std": data.std,
            "pixels": "0 to 1 before (x - mean) / std",
            **({"framing": data.framing} if data.framing else {}),
        },
        "id2label": {str(number): name for number, name in enumerate(data.classes)},
    }


def _in_words(data: ImageDataset | Task) -> str:
    """The same for people."""
    if isinstance(data, Task):
        return f"It takes {data.words}, each behind a free number of samples, as the task gives them."
    known = f" Classes, in order: {', '.join(data.classes[:20])}" if data.labelled else " Its images have no labels"
    return (
        f"Images have the shape {data.shape}; pixels from 0 to 1 are normalised as (x - mean) / std, with mean"
        f" {_numbers(data.mean)} and std {_numbers(data.std)}."
        + known
        + (f" and {len(data.classes) - 20} more (config.json)." if len(data.classes) > 20 else ".")
        + (f" Of a photograph is seen: {data.framing}." if data.framing else "")
    )


def metadata_of(rebuilt: Rebuilt, rebuilder: Rebuilder) -> dict[str, Any]:
    """What travels inside the weights' file."""
    found = config_of(rebuilt, rebuilder)
    return {name: found[name] for name in CARRIED if name in found}


def card_of(rebuilt: Rebuilt, rebuilder: Rebuilder, *files: str) -> str:
    """The model card in Markdown, for the files beside it."""
    record, name, space = rebuilt.record, rebuilder.sweep.info.name, rebuilder.space
    model, data = space.baseline.model, rebuilder.baseline.dataset
    trained = record.recovery.get("method")
    how = f"then trained by {trained}" if trained else "without any training"
    licence = licence_of(model)
    again = command_of(parsed(record), space)
    title = f"{model} on {data.name}, compressed to {100 * record.metrics['params_fraction']:.1f} % of its parameters"
    return "\n".join(
        [
            "---",
            *_front_matter(rebuilt, data.name, title, licence, rebuilder.space.scored),
            "---",
            "",
            f"# {title}",
            "",
            f"Channels of `{model}` were removed and folded into the layers that read them, {how}:"
            f" `{record.decomposition}`, channels chosen by `{record.criterion}`.",
            "",
            *_table(rebuilt, rebuilder),
            "",
            *(line for file in files for line in (*_code(file, model, data), "")),
            _in_words(data),
            "",
            "| channels of | kept | of |",
            "|---|---|---|",
            *(f"| `{site.name}` | {len(site.kept)} | {site.size} |" for site in rebuilt.made.result.sites),
            "",
            *(f"- {note}" for note in (*rebuilder.baseline.doubts, *rebuilt.made.notes)),
            f"- trial `{record.key}` of sweep `{name}`; rebuilt from its record and measured again: {rebuilt.score}",
            f"- licence of the original weights: {licence or 'not known'}",
            "",
            "Made by, with the sweep's folder or without it:" if again else "Made by:",
            "",
            "```bash",
            f"sweep export {name} --trial {record.key}",
            *([f"{again} --out model.safetensors"] if again else []),
            "```",
            "",
            "```json",
            json.dumps(record.config, indent=2),
            "```",
            "",
        ]
    )


def _front_matter(rebuilt: Rebuilt, dataset: str, title: str, licence: str, scored: Evaluator) -> list[str]:
    """YAML as Hugging Face reads it; JSON strings are YAML's, too."""
    record, name = rebuilt.record, scored.score.name
    splits = {record.split: record.metrics[name]}
    if f"{TEST}{name}" in record.metrics:
        splits["test"] = record.metrics[f"{TEST}{name}"]
    kind = "image-classification" if scored.by_image else "image-segmentation" if name == "miou" else "other"
    share = 0.01 if scored.score.unit == "%" else 1.0
    results = [
        line
        for split, value in splits.items()
        for line in (
            "  - task:",
            f"      type: {kind}",
            "    dataset:",
            f"      name: {json.dumps(dataset)}",
            f"      type: {json.dumps(dataset)}",
            f"      split: {split}",
            "    metrics:",
            f"    - type: {scored.word}",
            f"      value: {share * value:.6f}",
        )
    ]
    known = ["license: other", f"license_link: {json.dumps(licence)}"] if licence else ["license: unknown"]
    return [
        *known,
        "library_name: pytorch",
        *([] if kind == "other" else [f"pipeline_tag: {kind}"]),
        "tags:",
        "- neuron-merging",
        "- compression",
        f"datasets:\n- {json.dumps(dataset)}",
        f"metrics:\n- {scored.word}",
        f"model-index:\n- name: {json.dumps(title)}",
        "  results:",
        *results,
    ]


def _table(rebuilt: Rebuilt, rebuilder: Rebuilder) -> list[str]:
    record, metrics, original = rebuilt.record, rebuilt.record.metrics, rebuilder.sweep.info.state.original
    word, score = rebuilder.space.scored.word, rebuilder.space.scored.score
    unit = f" ({score.unit})" if score.unit else ""
    title = f"{word} on the {record.split} split{unit}"
    rows = [_row(title, original.get(score.name), metrics[score.name], score.form)]
    tested = f"{TEST}{score.name}"
    if tested in metrics:
        rows.append(_row(f"{word} on the test split{unit}", original.get(tested), metrics[tested], score.form))
    known = {name: METRICS[name] for name in SIZES if METRICS[name].known and name in metrics}
    rows += [_row(metric.title, original.get(name), metrics[name], metric.form) for name, metric in known.items()]
    before, after = rebuilt.timing
    rows.append(_row("latency of one image, this machine, one thread (ms)", before.one, after.one, "{:.3f}"))
    rows.append(_row(f"latency of {TIMED_BATCH} images at once, likewise (ms)", before.batch, after.batch, "{:.2f}"))
    return ["| | original | compressed |", "|---|---|---|", *rows]


def _row(title: str, before: float | None, after: float, form: str) -> str:
    return f"| {title} | {'–' if before is None else form.format(before)} | {form.format(after)} |"


def _code(file: str, model: str, data: ImageDataset | Task) -> list[str]:
    """How a file is used."""
    own, shape = is_own_code(model), data.shape
    factory = f", factory={model.rpartition(':')[2]}" if own else ""
    text = CODE[file.rpartition(".")[2]].format(file=file, factory=factory, shape=", ".join(map(str, shape)))
    if isinstance(data, Task):
        count = len(as_inputs(data.example_inputs))
        given = ", ".join(f"input_{n}" for n in range(count)) if count > 1 else "inputs"
        fed = ", ".join(f'"input_{n}": input_{n}' for n in range(count)) if count > 1 else '"images": inputs'
        text = text.replace("(images)", f"({given})").replace('{"images": images}', f"{{{fed}}}")
        text = re.sub(r"\n?  # float32 .*", "", text).replace("logits", "outputs")
    return ["```python", text, "```"]


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
