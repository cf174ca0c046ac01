"""Results in object storage, here a folder by its ``file://`` address."""

from __future__ import annotations

import io
import itertools
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import sweep.storage.mirror
from core.errors import UsageError
from sweep.arguments import located
from sweep.errors import StoreError
from sweep.storage.mirror import Mirror, fetch

WRITES = itertools.count(1)


@pytest.fixture
def bucket(tmp_path) -> Path:
    return tmp_path / "bucket" / "sweeps"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Change the machine: another cache folder."""

    def use(name: str) -> None:
        monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / name))

    use("first")
    return use


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    seconds = next(WRITES)
    os.utime(path, (10**9 + seconds, 10**9 + seconds))  # every write has a time of its own


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_another_machine_finds_what_the_first_one_pushed(bucket, machine):
    folder = fetch(bucket.as_uri())
    with Mirror(bucket.as_uri(), folder) as mirror:
        write(folder, "one/trials.jsonl", '{"a": 1}\n{"cut')
        write(folder, "one/sweep.json", "{}")
        write(folder, ".baselines/net.safetensors", "weights")
        for name in ("lock", "reserve", "live.json", "stop", "sweep.json.new"):
            write(folder, f"one/{name}", "only here")
        for name in ("mlflow.db", "mlflow.db-wal", "mlartifacts/1/plot.png"):
            write(folder, name, "only here")
    assert mirror.trouble == ""
    wanted = {"one/trials.jsonl": '{"a": 1}\n', "one/sweep.json": "{}", ".baselines/net.safetensors": "weights"}
    assert files(bucket) == wanted
    machine("second")
    found = files(fetch(bucket.as_uri()))
    assert found.pop(".mirror.json")
    assert found == wanted


def test_only_what_changed_is_copied(bucket, monkeypatch):
    mirror = Mirror(bucket.as_uri(), fetch(bucket.as_uri()))
    write(mirror.folder, "one/a", "1")
    write(mirror.folder, "one/b", "1")
    mirror.push()
    sent: list[str] = []
    monkeypatch.setattr(mirror, "_send", lambda name, path: sent.append(name) or [0, 0])
    mirror.push()
    assert sent == []
    write(mirror.folder, "one/b", "2")
    mirror.push()
    assert sent == ["one/b"]


def test_what_is_deleted_here_is_deleted_there(bucket):
    mirror = Mirror(bucket.as_uri(), fetch(bucket.as_uri()))
    write(mirror.folder, "one/a", "1")
    write(mirror.folder, "two/a", "1")
    mirror.push()
    (mirror.folder / "one" / "a").unlink()
    mirror.push()
    assert files(bucket) == {"two/a": "1"}


def test_a_later_fetch_brings_the_other_machines_changes(bucket, machine):
    first = Mirror(bucket.as_uri(), fetch(bucket.as_uri()))
    write(first.folder, "one/a", "1")
    first.push()
    machine("second")
    second = Mirror(bucket.as_uri(), fetch(bucket.as_uri()))
    write(second.folder, "one/a", "22")
    second.push()
    machine("first")
    assert (fetch(bucket.as_uri()) / "one" / "a").read_text() == "22"


def test_what_was_not_pushed_survives_a_fetch(bucket, machine):
    folder = fetch(bucket.as_uri())
    write(folder, "one/a", "1")
    write(folder, "one/b", "1")
    Mirror(bucket.as_uri(), folder).push()
    write(folder, "one/a", "longer")
    write(folder, "one/b", "longer")
    (bucket / "one" / "b").write_text("changed there too")
    assert fetch(bucket.as_uri()) == folder
    assert (folder / "one" / "a").read_text() == "longer"
    assert (folder / "one" / "b").read_text() == "changed there too"
    assert (folder / "one" / "b.kept").read_text() == "longer"


def test_it_pushes_while_the_sweep_runs(bucket, monkeypatch):
    monkeypatch.setattr(sweep.storage.mirror, "PERIOD", 0.01)
    pushed = threading.Event()
    with Mirror(bucket.as_uri(), fetch(bucket.as_uri())) as mirror:
        save = mirror._save
        monkeypatch.setattr(mirror, "_save", lambda: (save(), pushed.set()))
        write(mirror.folder, "one/a", "1")
        assert pushed.wait(30)
        pushed.clear()
        assert pushed.wait(30)
        assert (bucket / "one" / "a").read_text() == "1"


def test_a_storage_that_fails_does_not_disturb(bucket, machine):
    with Mirror(bucket.as_uri(), fetch(bucket.as_uri())) as mirror:
        write(mirror.folder, "one/a", "1")
        bucket.parent.mkdir(parents=True, exist_ok=True)
        bucket.write_text("a file where the folder should be")
    assert "cannot be written" in mirror.trouble
    assert str(mirror.folder) in mirror.trouble
    bucket.unlink()
    again = Mirror.of(fetch(bucket.as_uri()))
    assert again is not None
    with again:
        pass
    assert (again.trouble, files(bucket)) == ("", {"one/a": "1"})


def test_a_folder_is_itself(tmp_path):
    assert located(str(tmp_path)) == tmp_path
    assert located("results") == Path("results")


def test_unknown_storage_is_refused():
    with pytest.raises(UsageError, match=r"--results ftp://host/path: .*; give a folder, or s3://BUCKET/PATH"):
        located("ftp://host/path")


def test_unreadable_storage_is_told(bucket):
    bucket.parent.mkdir(parents=True)
    bucket.write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot be read .* check the address and the credentials"):
        located(bucket.as_uri())


SECRET = "s3://AKIAKEY:se/cr+et@bucket/sweeps?endpoint_override=http://h:9000&secret_key=hidden"


class Named:
    """A storage of one object with a name that its writer chose."""

    type_name = "fake"

    def __init__(self, name: str) -> None:
        self._name = name

    def get_file_info(self, _: object) -> list[object]:
        from pyarrow.fs import FileType

        return [SimpleNamespace(path=f"bucket/sweeps/{self._name}", type=FileType.File, size=3, mtime_ns=1)]

    def open_input_stream(self, _: str) -> io.BytesIO:
        return io.BytesIO(b"bad")


@pytest.fixture
def named(monkeypatch):
    def use(name: str) -> None:
        monkeypatch.setattr(sweep.storage.mirror, "_open", lambda uri: (Named(name), "bucket/sweeps"))

    return use


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "a\0b"])
def test_a_name_in_the_storage_that_leads_outside_is_refused(named, tmp_path, name):
    named(name)
    with pytest.raises(StoreError, match=r"leads out of the results folder; remove it from the storage"):
        fetch("s3://bucket/sweeps")
    assert not list(tmp_path.rglob("outside"))


def test_an_absolute_name_stays_inside(named, tmp_path):
    named("/etc/outside")
    folder = fetch("s3://bucket/sweeps")
    assert (folder / "etc" / "outside").read_bytes() == b"bad"


def test_a_link_here_is_not_written_through(named, tmp_path):
    named("fine")
    folder = fetch("s3://bucket/sweeps")
    (folder / "one").symlink_to(tmp_path)
    named("one/outside")
    with pytest.raises(StoreError, match=r"leads out of the results folder"):
        fetch("s3://bucket/sweeps")
    assert not (tmp_path / "outside").exists()


def test_a_link_here_is_not_pushed(bucket, tmp_path):
    (tmp_path / "private").write_text("private")
    with Mirror(bucket.as_uri(), fetch(bucket.as_uri())) as mirror:
        write(mirror.folder, "one/a", "1")
        (mirror.folder / "one" / "b").symlink_to(tmp_path / "private")
    assert files(bucket) == {"one/a": "1"}
    assert "one/b is a link and was not copied" in mirror.trouble


def test_keys_are_neither_shown_nor_kept(named, tmp_path):
    named("one/a")
    folder = fetch(SECRET)
    kept = folder / ".mirror.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    for part in ("AKIAKEY", "se/cr+et", "hidden"):
        assert part not in kept.read_text()
    assert Mirror.of(folder).uri == SECRET
    sweep.storage.mirror._addresses.clear()  # as in another process
    with pytest.raises(UsageError, match=r"is a copy of s3://…@bucket/sweeps.*keys are not kept: give that address"):
        Mirror.of(folder)


def test_keys_are_not_in_messages(monkeypatch):
    with pytest.raises(UsageError) as caught:
        fetch(SECRET.replace("s3://", "x3://"))
    assert "AKIAKEY" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    monkeypatch.setattr(sweep.storage.mirror, "_open", lambda uri: (Broken(), "bucket"))
    with pytest.raises(StoreError, match=r"s3://…@bucket/sweeps.*cannot be read") as other:
        fetch(SECRET)
    assert "AKIAKEY" not in str(other.value)


class Broken:
    def get_file_info(self, _: object) -> None:
        raise OSError(f"Access denied for {SECRET}")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"uri": "file:///x", "files": {"a": 3}}', "[" * 100_000])
def test_a_damaged_note_of_what_was_pushed(bucket, text):
    folder = fetch(bucket.as_uri())
    (folder / ".mirror.json").write_text(text)
    with pytest.raises(StoreError, match=r"\.mirror\.json is damaged; delete it, and the next command fetches anew"):
        fetch(bucket.as_uri())
