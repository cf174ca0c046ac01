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
from sweep.export.card import card_of, config_of, metadata_of
from sweep.export.formats import WRITERS
from sweep.export.rebuild import Rebuilder, Rebuilt
from sweep.storage.reader import StoredSweep

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


def write_folder(
    rebuilt: Rebuilt, rebuilder: Rebuilder, sweep: StoredSweep, folder: Path, formats: Sequence[str]
) -> Written:
    """Write a network into ``folder``, which takes its place when everything is there.

    Raises:
        UsageError: the folder cannot be written.
    """
    images, model = rebuilder.bench.images[:LOOKED_AT], rebuilt.made.model
    problems: dict[str, str] = {}
    with taking_place(folder) as new:
        for form in formats:
            try:
                WRITERS[form](model, images, new / f"model.{form}", metadata_of(rebuilt, sweep))
            except NeuronMergingError as error:
                problems[form] = str(error)
        texts = {
            "config.json": json.dumps(config_of(rebuilt, sweep), indent=2),
            "README.md": card_of(rebuilt, sweep, rebuilder.space),
        }
        for name, text in texts.items():
            with writing(new / name) as path:
                path.write_text(text, encoding="utf-8")
        names = sorted(path.name for path in new.iterdir())
    return Written(folder, rebuilt, tuple(folder / name for name in names), problems)


@contextlib.contextmanager
def taking_place(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` that becomes it when the block ends well, and else leaves no trace.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; choose another --out") from None
    try:
        yield new
        new.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; choose another --out") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
