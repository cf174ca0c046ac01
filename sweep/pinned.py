"""Our four packages are ours, whatever else is called `core` where somebody works.

A folder with a ``core`` of its own comes first on the import path of ``python -m``, of a driver that imports the user's
network from there, and of Ray's workers. A finder in front of all others answers for our names alone; it imports
nothing of ours, since nothing of ours can be found before it is there. Workers get it from a ``sitecustomize`` module,
which Python runs as it starts, before Ray has unpacked anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("core", "search_spaces", "sweep", "dashboards")
ROOT = Path(__file__).resolve().parents[1]
STARTUP = """\
import sys

sys.path.insert(0, {root!r})
try:
    import sweep
finally:
    sys.path.remove({root!r})
"""


class Pinned:
    """Finds our packages beside this one, and nothing else."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of a package of ours; None for any other module."""
        return PathFinder.find_spec(name, [str(ROOT)]) if name in NAMES and path is None else None


def hidden(folder: Path) -> list[str]:
    """Which of our names a folder has packages or modules of its own by."""
    if folder.resolve() == ROOT:
        return []
    return [name for name in NAMES if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]


@contextmanager
def workers_pinned(folder: Path) -> Iterator[None]:
    """Let the processes that are started in this block find our packages, where those of others would hide them.

    Args:
        folder: for the module that Python runs at its start; it stays there as long as the processes run.
    """
    if not hidden(Path.cwd()):
        yield
        return
    place = folder / "startup"
    place.mkdir()
    (place / "sitecustomize.py").write_text(STARTUP.format(root=str(ROOT)))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(place), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
