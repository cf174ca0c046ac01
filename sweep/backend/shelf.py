"""One shelf for all workers of a sweep: a folder beside its records, and for other machines an actor that hands it out.

Workers on the driver's machine, or on any that sees the same disk, work in the folder itself. The others keep files of
their own in their machine's folder for temporary files, ask the actor for what they lack, and give it what they make;
what it hands out travels through Ray's object store. So a sweep makes everything once per machine at most, and a
resumed one finds it on disk.
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.errors import NeuronMergingError
from core.files import writing
from core.shelf import FolderShelf, Shelf

MARK = "mark"
"""A file of the folder; whoever reads the same text there sees the same disk."""


@dataclass(frozen=True)
class ShelfPlace:
    """Where a sweep's shelf is, for a worker on any machine.

    Attributes:
        folder: on the driver's machine.
        mark: what its file `MARK` says; empty: it could not be written, and there is no shelf.
        keeper: the actor for machines that do not see the folder; None: there are none.
    """

    folder: str
    mark: str
    keeper: Any = None

    def open(self) -> Shelf:
        """The shelf, as this machine gets at it."""
        if not self.mark:
            return Shelf()
        folder = Path(self.folder)
        with contextlib.suppress(OSError):
            if (folder / MARK).read_text() == self.mark:
                return FolderShelf(folder)
        private = Path(tempfile.gettempdir()) / f"neuron-merging-sweep-{self.mark}"
        return FolderShelf(private, None if self.keeper is None else Remote(self.keeper))


@dataclass(frozen=True)
class Remote:
    """The folder of another machine, through its actor; one that does not answer has nothing."""

    keeper: Any

    def fetch(self, name: str) -> bytes | None:
        """What was kept under ``name``, or None."""
        with contextlib.suppress(RayError):
            content: bytes | None = ray.get(self.keeper.fetch.remote(name))
            return content
        return None

    def keep(self, name: str, content: bytes) -> None:
        """Keep ``content`` under ``name``."""
        with contextlib.suppress(RayError):
            self.keeper.keep.remote(name, content)


class Keeper:
    """Hands out the files of a folder, and takes new ones."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def fetch(self, name: str) -> bytes | None:
        """The file of that name, or None."""
        try:
            return self._path(name).read_bytes()
        except OSError:
            return None

    def keep(self, name: str, content: bytes) -> None:
        """Write it, if there is room."""
        with contextlib.suppress(NeuronMergingError, OSError), writing(self._path(name)) as path:
            path.write_bytes(content)

    def _path(self, name: str) -> Path:
        assert name.isalnum(), "a name leads out of no folder"
        return self._folder / f"{name}.safetensors"


def place_shelf(folder: Path, *, elsewhere: bool) -> ShelfPlace:
    """Make ``folder`` a sweep's shelf.

    Args:
        folder: it is made; where it cannot be written there is no shelf.
        elsewhere: whether workers may be on other machines; Ray must be connected then.
    """
    mark = uuid.uuid4().hex
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(mark)
    except OSError:
        return ShelfPlace(str(folder), "")
    if not elsewhere:
        return ShelfPlace(str(folder), mark)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ShelfPlace(
        str(folder), mark, ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote(str(folder))
    )
