"""A network as files: safetensors for this package, pt2 and ONNX for those that do not have it.

pt2 and ONNX are written from an exported program with a free number of images, read back, and compared with the
network: outputs must agree to `TOLERANCE` of their largest. The program is traced on zeros, since torch keeps what it
was traced on in the file, and nobody's images belong there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core.errors import NeuronMergingError, first_line
from core.export import save
from core.files import writing
from core.graph.trace import as_inputs
from core.tasks import Inputs
from sweep.reporting.silence import quiet

TOLERANCE = 1e-4
ABOUT = "neuron-merging-sweep.json"
"""Under this name the metadata travels in pt2 and ONNX files."""
NEEDED: Mapping[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript")}
"""Format -> packages beyond torch."""
INSTALL = "pip install 'neuron-merging-sweep[onnx]'"


class FormatError(NeuronMergingError):
    """A network cannot be expressed in a format, or what was written does not compute the same."""


def write_safetensors(model: nn.Module, images: Inputs, path: Path, metadata: Mapping[str, Any]) -> None:
    """The weights with what `core.export.load` needs."""
    del images
    save(model, path, dict(metadata))


def write_pt2(model: nn.Module, images: Inputs, path: Path, metadata: Mapping[str, Any]) -> None:
    """The program of `torch.export`, for ``torch.export.load``; the metadata is its extra file `ABOUT`.

    Raises:
        FormatError: torch cannot express the network, or reads something else back.
    """
    program, file = exported(model, images), io.BytesIO()  # no path: torch insists on its suffix, also of a temporary
    with saying("pt2"):
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(metadata)})
        file.seek(0)
        require_same(model, torch.export.load(file).module(), images, "pt2")
    with writing(path) as temporary:
        temporary.write_bytes(file.getvalue())


def write_onnx(model: nn.Module, images: Inputs, path: Path, metadata: Mapping[str, Any]) -> None:
    """The ONNX graph, for onnxruntime and others; the metadata is its property `ABOUT`.

    Raises:
        FormatError: the packages for it are missing, ONNX cannot express the network, or computes something else.
    """
    require_packages("onnx")
    program = exported(model, images)
    with saying("ONNX"), writing(path) as temporary:
        found: Any = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes=any_number(len(as_inputs(images))),
            input_names=named(len(as_inputs(images))),
            output_names=["logits"] if len(program.graph_signature.user_outputs) == 1 else None,
            verbose=False,
        )
        found.model.metadata_props[ABOUT] = json.dumps(metadata)
        found.save(str(temporary), external_data=False)
        if importlib.util.find_spec("onnxruntime") is not None:
            require_same(model, _session(temporary), images, "ONNX")


def require_packages(form: str) -> None:
    """Look whether what a format needs beyond torch is installed.

    Raises:
        FormatError: it is not; the message says what to install.
    """
    missing = [name for name in NEEDED.get(form, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise FormatError(f"{' and '.join(missing)}: not installed, which {INSTALL} does")


def named(count: int) -> list[str]:
    """What the inputs of a network are called in ONNX."""
    return ["images"] if count == 1 else [f"input_{number}" for number in range(count)]


def _session(path: Path) -> Callable[..., Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: [
        torch.from_numpy(found)
        for found in session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    ]


WRITERS: Mapping[str, Callable[[nn.Module, Inputs, Path, Mapping[str, Any]], None]] = {
    "safetensors": write_safetensors,
    "pt2": write_pt2,
    "onnx": write_onnx,
}
"""Format, which is the suffix of its files, too -> writes (network on the CPU, images (n ≥ 2, …), file, metadata)."""


def exported(model: nn.Module, images: Inputs) -> Any:
    """The network's program for any number of images.

    Raises:
        FormatError: torch cannot trace it so; the reason is in the message.
    """
    with quiet(), torch.no_grad():
        try:
            return torch.export.export(model.eval(), blank(images), dynamic_shapes=any_number(len(as_inputs(images))))
        except Exception as error:
            raise FormatError(f"torch.export cannot trace it: {first_line(error)}") from None


def blank(images: Inputs) -> tuple[Tensor, ...]:
    """Zeros like two of the images, or of each input."""
    return tuple(torch.zeros(2, *x.shape[1:], dtype=x.dtype) for x in as_inputs(images))


def any_number(count: int = 1) -> Any:
    """What torch's exporters are told of the images, or of so many inputs: their number is free."""
    rows = torch.export.Dim("batch", min=1, max=2**20)
    return tuple({0: rows} for _ in range(count))


@contextlib.contextmanager
def saying(form: str) -> Iterator[None]:
    """Turn whatever a converter raises into a sentence.

    Raises:
        FormatError: it could not express the network.
        NeuronMergingError: what was raised on purpose.
    """
    try:
        with quiet():
            yield
    except NeuronMergingError:
        raise
    except Exception as error:
        while error.__cause__ is not None:  # converters wrap the reason in advice to their developers
            error = error.__cause__  # type: ignore[assignment]
        raise FormatError(f"{form} cannot express it: {first_line(error)}") from None


def require_same(model: nn.Module, other: Callable[..., Any], images: Inputs, form: str) -> None:
    """Compare a network with what was written of it, for two numbers of images.

    Raises:
        FormatError: it gives other outputs.
    """
    with torch.no_grad():
        for some in (as_inputs(images), tuple(x[:1] for x in as_inputs(images))):
            pairs = zip(_tensors(model(*some)), _tensors(other(*some)), strict=True)
            away = max((_apart(wanted, found) for wanted, found in pairs), default=0.0)
            if not away <= TOLERANCE:
                raise FormatError(f"read back from {form}, its outputs differ by {away:.1e} of their largest")


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of an output, of whatever structure."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _apart(wanted: Tensor, found: Tensor) -> float:
    return float((wanted.double() - found.double()).abs().max() / wanted.double().abs().max().clamp_min(1e-12))
