"""Which files of a package travel to the nodes of a cluster.

Of a folder in a git work tree: what git has or would take (so nothing that is ignored); of any other, and of one that
git ignores as a whole: all of it. Never what is hidden, compiled, or looks like a key: code needs no secrets that lie
beside it. A link is followed inside the package and refused where it leads out of it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import UsageError

GIT_SECONDS = 60.0
GIT = ("git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
COMPILED = {"__pycache__"}
SOURCE = {".py", ".pyi"}
KEYS = re.compile(
    r"id_(rsa|dsa|ecdsa|ed25519)(\..*)?|.*\.(pem|key|p12|pfx|jks|ppk|kdbx|keystore|env)|.*htpasswd|netrc"
    r"|(.*[._-])?(credentials?|secrets?|passwords?|client_secret|service[_-]account|kubeconfig)([._-].*)?"
    r"|(.*[._-])?token(\.\w+)?",
    re.IGNORECASE,
)
"""Names of files with secrets in them; Python source of such a name is source."""


@dataclass(frozen=True)
class Manifest:
    """What is sent of one module or package.

    Attributes:
        files: name below the package's folder -> the file whose content is sent.
        private: names that look like keys and are not sent.
    """

    files: dict[PurePosixPath, Path]
    private: tuple[PurePosixPath, ...]


def manifest_of(source: Path) -> Manifest:
    """What is sent of ``source``, a module's file or a package's folder.

    Raises:
        UsageError: a link in the package leads out of it.
    """
    if source.is_file():
        return Manifest({PurePosixPath(source.name): source}, ())
    names = sorted(name for name in _names(source) if not _is_hidden(name))
    private = [name for name in names if _is_key(name)]
    sent = {name: source / name for name in names if name not in set(private)}
    return Manifest(dict(_resolved(source, sent)), tuple(private))


def _names(folder: Path) -> Iterator[PurePosixPath]:
    """Names of the files and links below ``folder``; of those in a work tree of their own too."""
    listed = _git(folder) or _walk(folder)
    for name in listed:
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # a work tree inside the work tree
            yield from (name / inner for inner in _names(path))
        elif path.is_symlink() or path.is_file():
            yield name


def _git(folder: Path) -> list[PurePosixPath]:
    """What git has or would take; nothing where it is not installed, there is no work tree, or it ignores all."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  fixed words, no shell
            GIT, cwd=folder, env=plain, capture_output=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [PurePosixPath(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name not in (b"", b"./")]


def _walk(folder: Path) -> Iterator[PurePosixPath]:
    for place, folders, files in os.walk(folder):
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in linked]
        yield from (PurePosixPath((Path(place) / name).relative_to(folder)) for name in (*files, *linked))


def _is_hidden(name: PurePosixPath) -> bool:
    return name.suffix == ".pyc" or any(part.startswith(".") or part in COMPILED for part in name.parts)


def _is_key(name: PurePosixPath) -> bool:
    return name.suffix not in SOURCE and KEYS.fullmatch(name.name) is not None


def _resolved(source: Path, sent: Mapping[PurePosixPath, Path]) -> Iterator[tuple[PurePosixPath, Path]]:
    """Each name with the file that it leads to; a link to a folder gives the files that are sent of that folder.

    Raises:
        UsageError: a link leads out of the package.
    """
    root = source.resolve()
    for name, path in sent.items():
        if not path.is_symlink():
            yield name, path
            continue
        target = path.resolve()
        if not target.is_relative_to(root):
            raise UsageError(
                f"{path} is a link to {target}, outside the package, which would be sent to every node of the cluster:"
                " put the file itself there, or take the link out of the package"
            )
        below = PurePosixPath(target.relative_to(root))
        for other, file in sent.items():
            if other.is_relative_to(below) and not file.is_symlink():
                yield (name / other.relative_to(below) if other != below else name), file
