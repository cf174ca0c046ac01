"""Images that stay as they are stored: the same inputs to the bit, and a file that is written once."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.config import TrialConfig
from core.datasets import Split, decoded
from core.errors import DataError, DiskFullError
from core.measure import evaluate, logits_of
from core.pixels import Mapped, Pixels, in_order, inputs_of, normalised
from core.race import hardest_first
from core.trial import run_trial
from core.workbench import Labelled, Workbench
from sweep.backend.shared import share
from tests.core.nets import make

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
STORED = torch.randint(0, 256, (60, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
INPUTS = normalised(STORED, MEAN, STD)


@pytest.fixture
def mapped(tmp_path: Path) -> Mapped:
    path = tmp_path / "images.u8"
    path.write_bytes(torch.cat([torch.zeros_like(STORED[:2]), STORED]).numpy().tobytes())
    return Mapped(path, (60, 3, 8, 8), first=2)


@pytest.fixture(params=["memory", "file", "floats"])
def pixels(request: pytest.FixtureRequest, mapped: Mapped) -> Pixels:
    sources: dict[str, Tensor | Mapped] = {"memory": STORED, "file": mapped, "floats": STORED.float() / 255}
    return Pixels(sources[request.param], MEAN, STD)


def test_they_are_the_inputs_to_the_bit(pixels: Pixels) -> None:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert (len(pixels), pixels.shape) == (60, INPUTS.shape)
    assert torch.equal(pixels[3:9], INPUTS[3:9])
    assert torch.equal(pixels[order[:5]], INPUTS[order[:5]])
    assert torch.equal(pixels.ready(pixels.held(slice(50, 70))), INPUTS[50:])
    mixed = in_order(pixels, order)
    assert torch.equal(mixed[:], INPUTS[order])
    assert torch.equal(in_order(mixed, order[:7])[:], INPUTS[order][order[:7]])
    assert torch.equal(pickle.loads(pickle.dumps(mixed))[2:4], INPUTS[order][2:4])


def test_few_are_inputs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.equal(inputs_of(STORED, STORED, MEAN, STD), INPUTS)  # type: ignore[arg-type]
    monkeypatch.setattr("core.pixels.LARGE", 4 * STORED.numel() - 1)
    assert isinstance(inputs_of(STORED, STORED, MEAN, STD), Pixels)


def test_trials_on_them_are_the_same(pixels: Pixels) -> None:
    net, _ = make("plain")
    net.eval()
    labels = logits_of(net, INPUTS).argmax(1)
    assert torch.equal(logits_of(net, pixels, 7), logits_of(net, INPUTS, 7))
    assert evaluate(net, pixels, labels, 7).loss == evaluate(net, INPUTS, labels, 7).loss
    plain = Workbench(net, INPUTS, labels, INPUTS, test=Labelled(INPUTS, labels), split="validation").with_original()
    stored = replace(plain, images=pixels, train_images=pixels, test=Labelled(pixels, labels))
    shared = pickle.loads(pickle.dumps(share(stored)))
    config = TrialConfig(ratio=0.5, decomposition="least-squares", calibration_images=20)
    wanted = run_trial(config, plain).metrics
    for bench in (
        stored,
        shared.build(),
        shared.carried().build(),
        hardest_first(stored),
        share(hardest_first(stored)).build(),
    ):
        found = run_trial(config, bench).metrics
        assert (found["accuracy"], found["params"]) == (wanted["accuracy"], wanted["params"])
        assert bench.tested(net) == plain.tested(net)


def test_a_file_does_not_travel_unless_it_has_to(mapped: Mapped) -> None:
    net, _ = make("plain")
    few = INPUTS[:2]
    bench = Workbench(net.eval(), Pixels(mapped, MEAN, STD), torch.zeros(60, dtype=torch.long), few).with_original()
    shared = share(bench)
    assert shared.carried().nbytes - shared.nbytes == STORED.numel()
    assert len(pickle.dumps(shared.images)) < 1000
    mapped.path.unlink()
    with pytest.raises(DataError, match=r"images\.u8: the decoded images cannot be read .* start again"):
        pickle.loads(pickle.dumps(shared)).build()


def test_parts_of_a_split_are_parts_of_its_file(mapped: Mapped) -> None:
    split = Split(mapped.open(), torch.arange(60), mapped).part(10, 20).part(3)
    assert split.labels.tolist() == list(range(13, 20))
    assert split.mapped is not None
    assert torch.equal(split.mapped.open(), STORED[13:20])
    assert torch.equal(split.images, STORED[13:20])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{i:03}.jpg" for i in range(60)]
    for i, path in enumerate(found):
        path.write_text(str(i))
    return found


class Decoder:
    """Decodes what `paths` has, and counts."""

    def __init__(self, damaged: int = -1) -> None:
        self.seen: list[int] = []
        self.damaged = damaged

    def __call__(self, paths: Sequence[Path]) -> Iterator[Tensor]:
        for path in paths:
            number = int(path.read_text())
            if number == self.damaged:
                raise DataError(f"{path} cannot be read as an image")
            self.seen.append(number)
            yield STORED[number]


def test_what_was_broken_off_goes_on(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "CHUNK", 8)
    told: list[int] = []
    first, second = Decoder(damaged=30), Decoder()
    with pytest.raises(DataError, match=r"030\.jpg cannot be read"):
        decoded.decoded(paths, "frame", 8, tmp_path, first, told.append)
    assert told == [8, 16, 24]
    monkeypatch.chdir(tmp_path)
    found = decoded.decoded(paths, "frame", 8, Path(), second, told.append)
    monkeypatch.chdir("/")
    assert second.seen == list(range(24, 60)), "what is there is not decoded again"
    assert told == [8, 16, 24, 32, 40, 48, 56, 60]
    assert torch.equal(found.open(), STORED)
    assert [path.suffix for path in found.path.parent.iterdir()] == [".u8"]


def test_the_name_changes_with_the_files_and_with_the_frame(paths: list[Path]) -> None:
    name = decoded.name_of(paths, "a")
    assert name == decoded.name_of(paths, "a") != decoded.name_of(paths, "b")
    assert decoded.name_of(paths[:-1], "a") != name
    paths[7].write_text("another picture")
    assert decoded.name_of(paths, "a") != name


def test_two_at_a_time_decode_once(paths: list[Path], tmp_path: Path) -> None:
    both = [Decoder(), Decoder()]
    rest = (paths, "f", 8, tmp_path)
    threads = [threading.Thread(target=decoded.decoded, args=(*rest, one, lambda done: None)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.seen) for one in both) == [0, 60]


def test_no_room_and_no_permission_are_one_sentence(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        decoded.decoded(paths, "f", 8, tmp_path / "file", Decoder(), lambda done: None)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("core.datasets.decoded.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match=r"the decoded photographs take 0\.0 GB, and there is no room for them"):
        decoded.decoded(paths, "f", 8, tmp_path, Decoder(), lambda done: None)
