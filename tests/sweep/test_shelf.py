"""The shelf of a sweep, on the driver's machine and on one that does not see its disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.shelf import FolderShelf, Kept, Shelf
from sweep.backend.shelf import Keeper, ShelfPlace, place_shelf


class Handle:
    """A keeper as Ray hands it out, in this process."""

    def __init__(self, folder: Path) -> None:
        keeper = Keeper(str(folder))
        self.fetch, self.keep = Method(keeper.fetch), Method(keeper.keep)


class Method:
    def __init__(self, call: object) -> None:
        self.remote = call


def test_who_sees_the_disk_works_in_the_folder(tmp_path: Path) -> None:
    place = place_shelf(tmp_path / "statistics", elsewhere=False)
    assert place.open() == FolderShelf(tmp_path / "statistics")


def test_who_does_not_asks_the_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr("ray.get", lambda value: value)
    here = place_shelf(tmp_path / "statistics", elsewhere=False)
    there = ShelfPlace(str(tmp_path / "not seen there"), here.mark, Handle(tmp_path / "statistics"))
    here.open().once("a", lambda: Kept({"x": torch.ones(1)}))
    assert float(there.open().once("a", lambda: Kept({"x": torch.zeros(1)})).tensors["x"]) == 1.0
    there.open().once("b", lambda: Kept({"x": torch.ones(1)}))
    assert float(here.open().once("b", lambda: Kept({"x": torch.zeros(1)})).tensors["x"]) == 1.0
    assert len(list((tmp_path / "tmp").glob("*/*.safetensors"))) == 2


def test_a_folder_that_cannot_be_written_is_no_shelf(tmp_path: Path) -> None:
    (tmp_path / "statistics").write_text("in the way")
    assert type(place_shelf(tmp_path / "statistics", elsewhere=False).open()) is Shelf
