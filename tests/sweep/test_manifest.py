"""What of a user's package is sent to a cluster: what git or the package says, no keys, nothing from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UsageError
from sweep.backend.manifest import manifest_of
from sweep.backend.shipping import LIMIT_BYTES, pack_code

FILES = {
    "__init__.py": "",
    "net.py": "WIDTH = 3\n",
    "deep/er.py": "",
    "data/labels.json": "{}",
    "special_tokens_map.json": "{}",
    "credentials.py": "# source, and imported\n",
}
KEYS = (
    "id_rsa",
    "deep/credentials.json",
    "server.pem",
    "prod.env",
    "my-secrets.yaml",
    "token.txt",
    "client_secret.json",
)
HIDDEN = (".env", ".git-credentials", ".aws/credentials", "__pycache__/net.cpython-311.pyc", "old.pyc")


@pytest.fixture
def package(tmp_path) -> Path:
    folder = tmp_path / "work" / "mine"
    for name in (*FILES, *KEYS, *HIDDEN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(FILES.get(name, "secret"))
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def sent(folder: Path) -> set[str]:
    return {str(name) for name in manifest_of(folder).files}


def test_without_git_all_but_keys_and_hidden_files_is_sent(package):
    assert sent(package) == set(FILES)
    assert {str(name) for name in manifest_of(package).private} == set(KEYS)


def test_in_a_work_tree_what_git_ignores_stays(package):
    git(package.parent, "init")
    (package.parent / ".gitignore").write_text("data/\n*.bin\n")
    (package / "weights.bin").write_text("large")
    (package / "tracked.bin").write_text("small")
    (package / "gone.py").write_text("")
    git(package.parent, "add", "-f", "mine/tracked.bin", "mine/net.py", "mine/gone.py")
    (package / "gone.py").unlink()
    assert sent(package) == set(FILES) - {"data/labels.json"} | {"tracked.bin"}


def test_a_folder_that_git_ignores_as_a_whole_is_sent(package):
    """As an installed package below an ignored ``.venv``."""
    git(package.parent, "init")
    (package.parent / ".gitignore").write_text("*\n")
    assert sent(package) == set(FILES)


def test_a_work_tree_inside_the_work_tree(package):
    for folder in (package.parent, package / "deep"):
        git(folder, "init")
    (package / "deep" / ".gitignore").write_text("own.bin\n")
    (package / "deep" / "own.bin").write_text("")
    assert sent(package) == set(FILES)


def link_to_a_file(package: Path) -> Path:
    (package.parent / "passwd").write_text("root")
    (package / "link").symlink_to(package.parent / "passwd")
    return package / "link"


def link_to_a_folder(package: Path) -> Path:
    (package / "data" / "etc").symlink_to("/etc")
    return package / "data" / "etc"


def link_to_nothing(package: Path) -> Path:
    (package / "link").symlink_to("/nowhere/at/all")
    return package / "link"


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("make", [link_to_a_file, link_to_a_folder, link_to_nothing])
def test_a_link_that_leads_out_is_refused(package, make: Callable[[Path], Path], tracked):
    if tracked:
        git(package.parent, "init")
    link = make(package)
    with pytest.raises(UsageError, match=rf"{link} is a link to .*, outside the package, .*: put the file itself"):
        manifest_of(package)


def test_links_inside_are_followed_once(package):
    (package / "same.py").symlink_to("net.py")
    (package / "again").symlink_to("data")
    (package / "me").symlink_to(".")
    (package / "key.txt").symlink_to("id_rsa")
    (package / "gone").symlink_to("not_there.py")
    files = manifest_of(package).files
    names = {str(name) for name in files}
    assert {"same.py", "again/labels.json", "me/net.py"} <= names
    assert not {"key.txt", "gone", "me/me/net.py"} & names


def test_a_package_that_is_a_link_itself(package, tmp_path):
    (tmp_path / "linked").symlink_to(package)
    assert sent(tmp_path / "linked") == set(FILES)


@pytest.fixture
def imported(package, monkeypatch):
    """The package as a user's model, imported."""
    (package / "net.py").write_text("def make():\n    pass\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.chdir(package.parent)
    yield "mine.net:make"
    for name in ("mine", "mine.net"):
        sys.modules.pop(name, None)


def test_what_is_packed_and_what_is_told(imported, package, tmp_path):
    told: list[str] = []
    folder = pack_code(tmp_path / "packed", [imported], told.append)
    packed = {str(path.relative_to(folder / "mine")) for path in (folder / "mine").rglob("*") if path.is_file()}
    assert packed == set(FILES)
    assert len(told) == 1
    assert told[0].startswith("not sent to the nodes, since it looks like a key: ")
    assert "id_rsa" in told[0]


def test_the_size_is_that_of_what_is_sent(imported, package, tmp_path):
    git(package.parent, "init")
    (package.parent / ".gitignore").write_text("*.bin\n")
    with (package / "ignored.bin").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    pack_code(tmp_path / "packed", [imported])
    with (package / "data" / "large").open("wb") as file:
        file.truncate(LIMIT_BYTES - 2)
    os.link(package / "data" / "large", package / "twice")
    with pytest.raises(UsageError, match=r"mine is 200 MB and would be sent to every node"):
        pack_code(tmp_path / "again", [imported])


def test_a_large_file_behind_a_link_counts(imported, package, tmp_path):
    with (package.parent / "large").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    (package / "small").symlink_to(package.parent / "large")
    with pytest.raises(UsageError, match=r"small is a link to .*large, outside the package"):
        pack_code(tmp_path / "packed", [imported])
    assert not (tmp_path / "packed" / "mine").exists()
