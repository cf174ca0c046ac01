"""Results folders: infos and records torn, mutated, of wrong types; odd names; links, pipes and garbage."""

from __future__ import annotations

import json
import os
import random
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from core.config import TrialConfig
from core.records import TrialRecord
from search_spaces import load_space, parse_space
from sweep.commands import list as list_command
from sweep.commands import logs, status
from sweep.reporting.outcome import make_outcome
from sweep.search.warmstart import WarmStart
from sweep.storage.info import REQUESTED, STATED, SweepInfo, SweepRequest, SweepState, resampled
from sweep.storage.layout import INFO, LIVE, LOCK, RESERVE, STOP, TRIALS
from sweep.storage.reader import read_sweep
from sweep.storage.writer import create_store, open_store
from sweep.tracking.sync import card_of
from sweep.tracking.uri import artifacts_of, check_tracking, uri_of
from tests.fuzz.files import Case, Room
from tests.fuzz.files_hostile import flipped, hostile, mutated_json

NAMES = ("a", "b c", "it's", ".hidden", "x\ny", "mlflow.db", "-rf", "é", "...", "x" * 200, "a\x1b[2J")
ASKED = ("a", "a", "a", "../outside", "..", ".", "", "/etc", "a/../a", "a\n", "no", "x" * 300, "\udc80", "a/b", "*")
LINKED = (INFO, TRIALS, LOCK, RESERVE, STOP, LIVE, f"{INFO}.new", f"{LIVE}.new")


@cache
def base() -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The info and the records of a sweep, as they are written."""
    space = load_space("digits-quick")
    with tempfile.TemporaryDirectory() as folder:
        with create_store(Path(folder), "a", lambda name: info_of(name, space.document)) as store:
            for number, config in enumerate(list(space.grid())[:6]):
                store.append(record_of(config, number))
            store.save(replace(store.state, status="stopped", message="told to"))
        info = json.loads((Path(folder) / "a" / INFO).read_text())
        lines = (Path(folder) / "a" / TRIALS).read_text().splitlines()
    return info, tuple(json.loads(line) for line in lines)


def info_of(name: str, document: dict[str, Any]) -> SweepInfo:
    original = {"accuracy": 90.0, "params": 100.0, "macs": 100.0, "bytes": 100.0, "latency_ms": 100.0}
    card = {"name": "digits", "digest": "d0", "images": 100, "shape": [1, 28, 28], "split": "test"}
    uri = "sqlite:////somewhere/mlflow.db"
    request = SweepRequest(name=name, space="digits-quick", resolved=document, search="grid", tracking_uri=uri)
    state = SweepState(
        total=32,
        started_at=1.7e9,
        original=original,
        dataset=card,
        baseline_key="b0",
        versions={"torch": "2"},
        hints=[TrialConfig(ratio=0.5).as_json()],
    )
    return SweepInfo(request, state)


def record_of(config: TrialConfig, number: int) -> TrialRecord:
    if number % 3 == 2:
        return TrialRecord(key=config.key, config=config.as_json(), status="failed", reason="it failed", log="a\nb")
    left = 1 - config.ratio
    sizes = {f"{name}_fraction": left for name in ("params", "macs", "bytes", "latency")}
    metrics = {"accuracy": 80.0 + number, "loss": 0.5, "accuracy_drop": 10.0 - number, "params": 9.0, **sizes}
    common = {"started_at": 1.7e9 + number, "seconds": 0.1, "provenance": {"host": "h"}, "sites": [{"name": "ip1"}]}
    return TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics=metrics, **common)


class Folder:
    """A results folder under construction."""

    def __init__(self, room: Room, name: str) -> None:
        self.results, self.outside = room.inside / "results", room.outside
        self.sweep = self.results / name
        self.sweep.mkdir(parents=True)
        info, records = base()
        self.info = {**info, "name": name if name == "a" else info["name"]}
        self.records: list[Any] = [dict(record) for record in records]
        self.write()

    def write(self) -> None:
        """Write the info and the records as they are now."""
        (self.sweep / INFO).write_text(json.dumps(self.info, indent=1))
        (self.sweep / TRIALS).write_text("".join(f"{json.dumps(record)}\n" for record in self.records))


def mutate_info(rng: random.Random, folder: Folder) -> None:
    folder.info = mutated_json(rng, folder.info)
    folder.write()


def mutate_field(rng: random.Random, folder: Folder) -> None:
    for name in rng.sample(sorted(REQUESTED | STATED), rng.choice([1, 1, 2])):
        folder.info[name] = hostile(rng)
    folder.write()


def mutate_records(rng: random.Random, folder: Folder) -> None:
    for number in rng.sample(range(len(folder.records)), rng.randrange(1, 4)):
        folder.records[number] = mutated_json(rng, folder.records[number])
    folder.write()


def mutate_metrics(rng: random.Random, folder: Folder) -> None:
    """Of the right types, and no figures of a trial."""
    record = rng.choice(folder.records)
    numbers = [float("nan"), float("inf"), 1e308, -1e308, -1.0, 0.0, 10**400, 5e-324, None]
    for name in rng.sample([*(record["metrics"] or {"accuracy": 1})], 1):
        record["metrics"] = {**record["metrics"], name: rng.choice(numbers)}
    for name in rng.sample(["started_at", "seconds", "evaluate_seconds", "images"], rng.randrange(3)):
        record[name] = rng.choice(numbers)
    if rng.random() < 0.3:
        record["metrics"] = {}
    folder.write()


def spoil_lines(rng: random.Random, folder: Folder) -> None:
    lines = [json.dumps(record).encode() for record in folder.records]
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
            case 1:
                lines[place] = flipped(rng, lines[place])
            case 2:
                lines.insert(
                    place, rng.choice([b'{"criterion": ["l1"]}', b"[" * 100_000, b"\x00" * 100, b"null", b"\xff"])
                )
            case 3:
                lines.insert(place, b"x" * rng.choice([10, 10**6, 5 * 10**6]))
            case 4:
                lines.insert(place, lines[rng.randrange(len(lines))])
            case 5:
                lines[place] = rng.randbytes(rng.randrange(300))
    (folder.sweep / TRIALS).write_bytes(rng.choice([b"\n", b"\r\n", b"\n\n", b"\r"]).join(lines))


def garbage(rng: random.Random, folder: Folder) -> None:
    for name in rng.sample([INFO, TRIALS, LIVE, LOCK], rng.randrange(1, 3)):
        content = rng.choice(
            [b"", b"\0" * 100, rng.randbytes(1000), b"{" * 5000, b"[" * 100_000, b"9" * 10_000, b"null"]
        )
        (folder.sweep / name).write_bytes(content)


def torn_info(rng: random.Random, folder: Folder) -> None:
    content = (folder.sweep / INFO).read_bytes()
    kept = content[: rng.randrange(len(content))]
    (folder.sweep / INFO).write_bytes(rng.choice([kept, flipped(rng, content)]))


def links(rng: random.Random, folder: Folder) -> None:
    for name in rng.sample(LINKED, rng.randrange(1, 4)):
        path = folder.sweep / name
        target = rng.choice(
            [folder.outside / "precious", folder.outside / "new", Path("/dev/zero"), path, folder.outside, folder.sweep]
        )
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def no_files(rng: random.Random, folder: Folder) -> None:
    """A folder or a pipe where a file should be, or nothing."""
    for name in rng.sample([INFO, TRIALS, LOCK, LIVE, RESERVE, STOP], rng.randrange(1, 3)):
        path = folder.sweep / name
        path.unlink(missing_ok=True)
        if rng.random() < 0.4:
            path.mkdir()
        elif rng.random() < 0.6:
            os.mkfifo(path)


def nothing(rng: random.Random, folder: Folder) -> None:
    """Only the name is odd."""


MAKERS: tuple[Callable[[random.Random, Folder], None], ...] = (
    mutate_info,
    mutate_field,
    mutate_records,
    mutate_metrics,
    spoil_lines,
    garbage,
    torn_info,
    links,
    no_files,
    nothing,
)


def make(rng: random.Random, number: int, room: Room) -> Case:
    """Case ``number``: the makers take turns; most sweeps have an ordinary name."""
    maker = MAKERS[number % len(MAKERS)]
    name = rng.choice(NAMES) if maker is nothing or rng.random() < 0.1 else "a"
    asked = rng.choice(ASKED) if maker is nothing or rng.random() < 0.1 else name
    folder = Folder(room, name)
    maker(rng, folder)
    results, as_json = folder.results, rng.random() < 0.5
    uses = {
        "list": lambda: use_list(results, as_json),
        "status of all": lambda: use_status(results, None, as_json),
        "status": lambda: use_status(results, asked, as_json),
        "logs": lambda: use_logs(results, asked, as_json),
        "front": lambda: use_front(results, asked),
        "warm start": lambda: use_warm_start(results, asked),
        "sync": lambda: use_sync(results, asked),
        "resume": lambda: use_resume(results, asked, rng.choice([None, 3])),
        "list again": lambda: use_list(results, as_json),
    }
    return Case(maker.__name__.replace("_", " "), uses)


def use_list(results: Path, as_json: bool) -> None:
    assert list_command.run(Namespace(results=results, json=as_json)) == 0


def use_status(results: Path, name: str | None, as_json: bool) -> None:
    assert status.run(Namespace(results=results, name=name, json=as_json, watch=False)) == 0


def use_logs(results: Path, name: str, as_json: bool) -> None:
    assert logs.run(Namespace(results=results, name=name, trial=None, json=as_json)) == 0


def use_front(results: Path, name: str) -> None:
    outcome = make_outcome(read_sweep(results, name), ("csv", "json"))
    assert all(path.is_file() for path in outcome.files)


def use_warm_start(results: Path, name: str) -> None:
    warm = WarmStart.read(load_space("digits-quick"), results, [name])
    warm.records_for("b0", "test")
    warm.hints_for("another", "test")


def use_sync(results: Path, name: str) -> None:
    """All that a sync does before it writes to MLflow."""
    sweep = read_sweep(results, name)
    uri = uri_of(sweep.info.request.tracking_uri, results)
    if not uri.startswith("http"):
        check_tracking(uri)
    card_of(sweep)
    root = artifacts_of(uri, results)
    place = f"{root}/{sweep.info.request.space}".removeprefix("file://") if root else ""
    assert not root or Path(place).resolve().is_relative_to(results.resolve()), "artifacts would lie elsewhere"


def use_resume(results: Path, name: str, samples: int | None) -> None:
    """All that a resumed sweep does before its network is prepared."""
    with open_store(results, name) as store:
        assert "/" not in store.info.name, "its name is a path"
        parse_space(resampled(store.info.request, samples), store.info.name)
        for values in store.info.state.hints:
            TrialConfig.parse(values)
        known = len(read_sweep(results, name).records)
        store.save(replace(store.state, status="stopped"))
    assert len(read_sweep(results, name).records) == known
