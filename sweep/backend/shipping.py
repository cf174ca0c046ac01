"""The driver's own code, packed for workers on other machines: ours, and the user's modules that the network needs.

Ray copies one folder to every node and puts it first on the workers' import path (a ``working_dir`` of its
``runtime_env``). So a node needs the packages of ``pyproject.toml`` and nothing of ours, and a node that has another
version of our code in its image runs the driver's. Which files of a folder are sent: see `sweep.backend.manifest`.

# NOTE: ``py_modules`` would do the same with a package each, but then Ray also puts the driver's current directory
# before them on the import path of every node: an image with older code in a folder of the same name would win.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core.errors import UsageError
from core.parts import is_own_code
from core.plugins import import_callable
from sweep.backend.manifest import Manifest, manifest_of

PACKAGES = ("core", "search_spaces", "sweep", "dashboards")
LIMIT_BYTES = 100 * 2**20


def pack_code(folder: Path, specs: Sequence[str] = (), tell: Callable[[str], None] | None = None) -> Path:
    """Copy our packages and the user's modules into a new ``folder``, and return it.

    Args:
        folder: does not exist yet.
        specs: names of a model and of a dataset, see `user_modules`.
        tell: hears, in a line of text, which files look like keys and are left out.

    Raises:
        UsageError: a user's package is too large to be sent around, or a link in it leads elsewhere.
    """
    ours = [Path(str(importlib.import_module(name).__file__)).parent for name in PACKAGES]
    folder.mkdir(parents=True)
    for source in [*ours, *user_modules(specs)]:
        manifest = manifest_of(source)
        _require_small(source, manifest)
        if manifest.private and tell is not None:
            tell(f"not sent to the nodes, since it looks like a key: {', '.join(map(str, manifest.private))}")
        for name, path in manifest.files.items():
            target = folder / source.name / name if source.is_dir() else folder / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return folder


def user_modules(specs: Sequence[str]) -> list[Path]:
    """Files and package folders of the user's code behind ``package.module:factory`` names, sorted.

    With a module come all others that are loaded and lie beside it, since it may have imported them. Installed
    packages stay: they must be installed on the nodes too, as all that ours needs.
    """
    names = {spec.partition(":")[0].partition(".")[0] for spec in specs if is_own_code(spec)}
    for spec in filter(is_own_code, specs):
        import_callable(spec, "model or dataset")
    roots = {path.parent for name in names if (path := _place(name)) is not None}
    return sorted(path for name, path in _loaded() if path.parent in roots and name not in PACKAGES)


def _loaded() -> Iterator[tuple[str, Path]]:
    """Name and place of every loaded top-level module that is neither installed nor the running script."""
    for name in {name.partition(".")[0] for name in list(sys.modules)} - {"__main__", "__mp_main__"}:
        if (path := _place(name)) is not None:
            yield name, path


def _place(name: str) -> Path | None:
    """Where a loaded top-level module lies: its file or its package's folder; None: it is installed or built in."""
    module = sys.modules.get(name)
    folders = list(getattr(module, "__path__", []))
    file = folders[0] if folders else getattr(module, "__file__", None)
    path = Path(file or "").absolute()
    return path if file and path.exists() and not _is_installed(path.resolve()) else None


def _is_installed(path: Path) -> bool:
    homes = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return "dist-packages" in path.parts or any(path.is_relative_to(home) for home in homes)


def _require_small(source: Path, manifest: Manifest) -> None:
    size = sum(path.stat().st_size for path in manifest.files.values())
    if size > LIMIT_BYTES:
        raise UsageError(
            f"{source} is {size / 2**20:.0f} MB and would be sent to every node of the cluster: keep data out of the"
            f" package of your code (at most {LIMIT_BYTES // 2**20} MB), or install the package on the nodes"
        )
