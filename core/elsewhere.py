"""Where a name that nobody registered may be known: in a Python file of the user's, or at a publisher of networks."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Sequence
from pathlib import Path

from core.errors import UsageError

NAMED = 3
"""So many functions of a file are named at most."""


def in_a_file(name: str) -> str:
    """What to write where ``name`` is a Python file of the current directory; "" where it is none.

    The file is read, and nothing in it runs.
    """
    dotted = as_module(name)
    try:
        path = Path(*dotted.split(".")).with_suffix(".py")
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return ""
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    if not found:
        return ""
    written = " or ".join(f"{dotted}:{one}" for one in found[:NAMED])
    return f"{path} is a module; name the function in it, too: {written}"


def as_module(name: str) -> str:
    """The name of a module from that of its file: ``nets.small`` of ``./nets/small.py``."""
    return ".".join(part for part in Path(name.removesuffix(".py")).parts if part not in ("/", "..", "."))


def at_a_publisher(name: str) -> str:
    """What to write for a network of torchvision's or timm's; "" where they have none of this name."""
    from core.models.optional import optional_package

    publishers: list[tuple[str, Sequence[str]]] = []
    with contextlib.suppress(ImportError):
        import torchvision

        publishers.append(("torchvision", torchvision.models.list_models(torchvision.models)))
    with contextlib.suppress(UsageError):
        publishers.append(("timm", optional_package("timm", "timm", name).list_models()))
    kind, _, weights = name.partition("@")
    found = [f"{publisher}:{name}" for publisher, known in publishers if kind in known]
    return f"write {' or '.join(found[:1] if weights else found)}" if found else ""


def network(name: str) -> str:
    """What to write for a network that is not registered; "" where nothing is known of it."""
    return in_a_file(name) or at_a_publisher(name)
