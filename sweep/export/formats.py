"""A network as files: safetensors for this package, pt2 and ONNX for those that do not have it.

pt2 and ONNX are written from one exported program with a free number of images, read back, and compared with the
network: outputs must agree to `TOLERANCE` of their largest.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import NeuronMergingError, first_line
from core.export import save
from core.files import writing

TOLERANCE = 1e-4
INSTALL = "pip install 'neuron-merging-sweep[onnx]'"


class FormatError(NeuronMergingError):
    """A network cannot be expressed in a format, or what was written does not compute the same."""


def write_safetensors(model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
    """The weights with what `core.export.load` needs."""
    del images
    save(model, path, dict(metadata))


def write_pt2(model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
    """The program of `torch.export`, for ``torch.export.load``."""
    del metadata
    program = exported(model, images)
    with writing(path) as temporary, quiet():
        torch.export.save(program, temporary.with_suffix(".pt2"))
        temporary.with_suffix(".pt2").replace(temporary)
        with temporary.open("rb") as file:
            again = torch.export.load(file).module()
        require_same(model, again, images, "pt2")


def write_onnx(model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
    """The ONNX graph, for onnxruntime and others.

    Raises:
        FormatError: the packages for it are missing.
    """
    del metadata
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise FormatError(f"{' and '.join(missing)}: not installed, which {INSTALL} does")
    program = exported(model, images)
    with writing(path) as temporary, quiet():
        found: Any = torch.onnx.export(
            program, (), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
        )
        found.save(str(temporary), external_data=False)
        if importlib.util.find_spec("onnxruntime") is not None:
            require_same(model, _session(temporary), images, "ONNX")


def _session(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run(None, {given.name: images.numpy()})[0])


WRITERS: Mapping[str, Callable[[nn.Module, Tensor, Path, Mapping[str, Any]], None]] = {
    "safetensors": write_safetensors,
    "pt2": write_pt2,
    "onnx": write_onnx,
}
"""Format, which is the suffix of its files, too -> writes (network on the CPU, images (n ≥ 2, …), file, metadata)."""


def exported(model: nn.Module, images: Tensor) -> Any:
    """The network's program for any number of images, or for as many as it insists on.

    Raises:
        FormatError: torch cannot trace it; the reason is in the message.
    """
    batch = torch.export.Dim("batch", min=1, max=2**20)
    with quiet(), torch.no_grad():
        try:
            return torch.export.export(model.eval(), (images[:2],), dynamic_shapes=({0: batch},))
        except Exception as error:
            raise FormatError(f"torch.export cannot trace it: {first_line(error)}") from None


def require_same(model: nn.Module, other: Callable[[Tensor], Tensor], images: Tensor, form: str) -> None:
    """Compare a network with what was written of it, for two numbers of images.

    Raises:
        FormatError: it gives other outputs.
    """
    with torch.no_grad():
        for some in (images, images[:1]):
            wanted, found = model(some), other(some)
            away = float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1e-12))
            if not away <= TOLERANCE:
                raise FormatError(f"read back from {form}, its outputs differ by {away:.1e} of their largest")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, and no words of torch's exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
