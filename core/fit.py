"""Whether a network takes a dataset's images, and gives what its labels want; or a task's inputs."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from core.datasets import ImageDataset
from core.errors import ModelError, first_line
from core.graph.trace import as_inputs
from core.parts import is_pretrained
from core.tasks import Task


def require_fit(name: str, model: nn.Module, dataset: ImageDataset, device: str = "cpu") -> None:
    """Run one image through ``model``.

    Raises:
        ModelError: it does not take the dataset's images alone, gives no output for each class, or comes with weights
            for another number of classes.
    """
    shape, classes = dataset.shape, len(dataset.classes)
    taken = _inputs_of(model)
    if len(taken) > 1:
        raise ModelError(
            f"model {name!r} takes {len(taken)} inputs ({', '.join(taken)}), and a dataset has images alone: wrap it in"
            " a module whose forward takes the images, or bring a Task with as many inputs (docs/tasks.md)"
        )
    try:
        with torch.no_grad():
            output = model(dataset.normalise(dataset.test.images[:1]).to(device))
    except Exception as error:  # whatever a network says to what it does not take
        reason = first_line(error)
        advice = "choose another size"
        if shape[-1] in (1, 3) and shape[0] not in (1, 3):
            advice = "they seem to be (N, H, W, C), and (N, C, H, W) are wanted: images.permute(0, 3, 1, 2)"
        what = f"model {name!r} does not take images {shape} of {dataset.name!r}"
        raise ModelError(f"{what} ({reason}): {advice}") from None
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] < max(classes, 1):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        expected = f"(1, {classes})" if classes else "(1, any number of classes)"
        raise ModelError(
            f"model {name!r} gives {found} for one image; expected logits {expected}: what is no classification is"
            " brought as a Task (docs/tasks.md)"
        )
    if is_pretrained(name) and dataset.labelled and output.shape[1] != classes:
        raise ModelError(
            f"the weights of model {name!r} tell {output.shape[1]} classes apart, and {dataset.name!r} has {classes}: "
            "use a dataset with the weights' own classes, in their order"
        )


def require_runs(name: str, model: nn.Module, task: Task, device: str = "cpu") -> None:
    """Run a task's example through ``model``.

    Raises:
        ModelError: it does not take it.
    """
    inputs = [x.to(device) for x in as_inputs(task.example_inputs)]
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:  # whatever a network says to what it does not take
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ModelError(
            f"model {name!r} does not take the example inputs {shapes} of {task.name!r} ({first_line(error)}): give one"
            " tensor for each argument of its forward"
        ) from None


def _inputs_of(model: nn.Module) -> list[str]:
    """What ``forward`` has to be given; nothing where that cannot be told."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [parameter.name for parameter in parameters if _is_needed(parameter)]


def _is_needed(parameter: inspect.Parameter) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return parameter.kind in positional and parameter.default is inspect.Parameter.empty
