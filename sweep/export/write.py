"""One network of a sweep as a folder: its weights in every format that is wanted, its card, its configuration."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import NeuronMergingError, UsageError
from core.files import writing
from sweep.export.card import FORMAT, card_of, config_of, metadata_of
from sweep.export.formats import WRITERS
from sweep.export.rebuild import Rebuilder, Rebuilt

CONFIG, CARD = "config.json", "README.md"
OURS = (CONFIG, CARD, *(f"model.{form}" for form in WRITERS))
"""Files of an exported network."""
LOOKED_AT = 8
"""Images that formats are compared on."""


@dataclass(frozen=True)
class Written:
    """A folder with a network.

    Attributes:
        folder: where it is.
        rebuilt: the network.
        files: in it.
        problems: format -> why it is not there.
    """

    folder: Path
    rebuilt: Rebuilt
    files: tuple[Path, ...]
    problems: dict[str, str]


def write_folder(rebuilt: Rebuilt, rebuilder: Rebuilder, folder: Path, formats: Sequence[str]) -> Written:
    """Write a network into ``folder``, which takes its place when everything is there.

    Raises:
        UsageError: the folder cannot be written.
    """
    images, model = rebuilder.bench.some(LOOKED_AT), rebuilt.made.model
    problems: dict[str, str] = {}
    with taking_place(folder) as new:
        for form in formats:
            try:
                WRITERS[form](model, images, new / f"model.{form}", metadata_of(rebuilt, rebuilder))
            except NeuronMergingError as error:
                problems[form] = str(error)
        texts = {
            CONFIG: json.dumps(config_of(rebuilt, rebuilder), indent=2),
            CARD: card_of(rebuilt, rebuilder, *(f"model.{form}" for form in formats if form not in problems)),
        }
        for name, text in texts.items():
            with writing(new / name) as path:
                path.write_text(text, encoding="utf-8")
        names = sorted(path.name for path in new.iterdir())
    return Written(folder, rebuilt, tuple(folder / name for name in names), problems)


def require_free(folder: Path, *, force: bool) -> None:
    """Look whether a network may be written into ``folder``: it is empty, or holds one of ours that may be replaced.

    Raises:
        UsageError: something is there, and is not to be replaced, or is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder")
    if not any(folder.iterdir()):
        return
    if not is_ours(folder):
        raise UsageError(f"{folder} holds something else than an exported network; name another --out")
    if not force:
        raise UsageError(f"{folder} is there already; take --force to replace it, or another --out")


def is_ours(folder: Path) -> bool:
    """Whether ``folder`` holds an exported network; many others have a ``config.json`` too."""
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


@contextlib.contextmanager
def taking_place(folder: Path) -> Iterator[Path]:
    """An empty folder whose files go to ``folder`` when the block ends well, in place of those of an earlier network.

    What else lies there stays. Otherwise no trace is left.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder, prefix=".export."))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; choose another --out") from None
    try:
        yield new
        for name in OURS:
            (folder / name).unlink(missing_ok=True)
        for path in new.iterdir():
            path.replace(folder / path.name)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; choose another --out") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: it is what it should be
            for made in missing:
                made.rmdir()
