"""Search spaces: the shipped files with lines, values and bytes changed, and hostile values everywhere."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import search_spaces
from core.config import TrialConfig
from search_spaces import SearchSpace, load_space
from tests.fuzz.files import Case, Room
from tests.fuzz.files_hostile import flipped

VALUES = (
    *("nan", "-nan", "inf", "-inf", "1e-5", "1e-300", "5e-324", "1e308", "0", "-0.0", "1", "-1", "2", "0.5", "1.0"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 5000, "0x" + "f" * 5000, "0b1"),
    *("2020-01-01", "12:00:00", "2020-01-01T00:00:00Z", "true", "false", '""', '"l1"', '"nmf"', '"grid"', '"tpe"'),
    *('"per-site"', '"a\\nb"', '"\\u0000"', "'" + "x" * 10_000 + "'", "[]", "[[]]", "[1, 1.0]", "[0.1, nan]"),
    *("[true, false]", "['l1', 'l2']", "{}", "{ values = [] }", "{ values = [0.1, 0.5] }", "{ low = 0, high = 1 }"),
    *("{ low = 0.1, high = 0.9, step = 1e-5 }", "{ low = 1, high = 9, log = true }", "['a\\nb']", '["a\\nb"]'),
    *("{ values = [1, 2], when = { ratio = [0.5] } }", "{ values = ['nmf'], when = { decomposition = ['nmf'] } }"),
    *("[" * 20_000, "{ a = " * 20_000, "[" * 30 + "]" * 30, "[" + "0.1, " * 30_000 + "]", "'../../x'", "'s3://K:S@b'"),
    "[" + ", ".join(f"{number / 10**5:g}" for number in range(20_000)) + "]",
)
SANE = ("0.5", "[0.3, 0.5]", "l2", '["l1", "l2"]', "none", "[1, 2]", "7", "['ip1']", "{ a = 0.5 }")
LINES = (
    *(
        "[axes]",
        "[fixed]",
        "[search]",
        "[baseline]",
        "[[axes]]",
        "[axes.ratio]",
        "[axes.'ratios.a']",
        "]",
        "a" * 10_000,
    ),
    *("samples = 10", "algorithm = 'random'", "algorithm = 'nsga2'", "name = '../x'", "x.y.z = 1", "objectives = {}"),
    *("seed = { low = 0, high = 9223372036854775807 }", "calibration_images = { low = 1, high = 1000000, log = true }"),
    *("'ratios.*' = { low = 0.1, high = 0.9 }", "ratios = { a = 0.5 }", "sites = [['ip1'], ['ip2']]", "options = {}"),
    *("damping = { low = 0.01, high = 1, log = true }", "bn_recalibrate = { values = [true, false] }", "\x00"),
)
KEY = re.compile(r"^(\s*)([\w.\"'*-]+)(\s*=\s*)(.+)$", re.MULTILINE)
INNER = re.compile(r"(?<=[\[ ,=])(\"[^\"]*\"|-?[\d.]+|true|false)")
CHANGES = (
    "ratio",
    "criterion",
    "decomposition",
    "threshold",
    "seed",
    "sites",
    "ratios",
    "search.samples",
    "baseline.size",
)


@cache
def texts() -> tuple[str, ...]:
    """The shipped files."""
    return tuple(path.read_text() for path in sorted(Path(search_spaces.__file__).parent.glob("*.toml")))


def change_value(rng: random.Random, text: str) -> str:
    found = [*KEY.finditer(text)]
    if not found:
        return text
    place = rng.choice(found)
    return text[: place.start(4)] + rng.choice(VALUES) + text[place.end(4) :]


def change_inside(rng: random.Random, text: str) -> str:
    found = [*INNER.finditer(text)]
    if not found:
        return text
    place = rng.choice(found)
    return text[: place.start()] + rng.choice(VALUES) + text[place.end() :]


def change_key(rng: random.Random, text: str) -> str:
    found = [*KEY.finditer(text)]
    if not found:
        return text
    place = rng.choice(found)
    keys = [
        *(other[2] for other in found),
        "seed",
        "allocation",
        "'ratios.a'",
        "''",
        "lam",
        "damping",
        "x" * 5000,
        "a.b",
    ]
    return text[: place.start(2)] + rng.choice(keys) + text[place.end(2) :]


def change_lines(rng: random.Random, text: str) -> str:
    lines = text.splitlines()
    match rng.randrange(4):
        case 0 if lines:
            del lines[rng.randrange(len(lines))]
        case 1 if lines:
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        case 2:
            rng.shuffle(lines)
        case _:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(LINES))
    return "\n".join(lines)


def change_bytes(rng: random.Random, text: str) -> str:
    return flipped(rng, text.encode(errors="surrogateescape")).decode(errors="surrogateescape")


def change_number(rng: random.Random, text: str) -> str:
    """Another value of the same kind, which may do."""
    found = [*INNER.finditer(text)]
    place = rng.choice(found)
    if place[0].startswith('"'):
        value = rng.choice([other[0] for other in found if other[0].startswith('"')])
    else:
        value = rng.choice([place[0], "0.25", "0.35", "0.05", "0.01", "1", "2", "true", "false", "3e-3", "0.7"])
    return text[: place.start()] + value + text[place.end() :]


def drop_axis(rng: random.Random, text: str) -> str:
    """Without one of the lines that set something."""
    lines = text.splitlines()
    place = rng.choice([number for number, line in enumerate(lines) if "=" in line])
    return "\n".join(lines[:place] + lines[place + 1 :])


MAKERS: tuple[Callable[[random.Random, str], str], ...] = (
    change_number,
    drop_axis,
    change_value,
    change_inside,
    change_key,
    change_lines,
    change_bytes,
)


def make(rng: random.Random, number: int, room: Room) -> Case:
    """Case ``number``: the makers take turns, and some files are changed more than once."""
    maker, text = MAKERS[number % len(MAKERS)], rng.choice(texts())
    text = maker(rng, text)
    for _ in range(0 if number % 3 else rng.choice([1, 3])):
        text = rng.choice([change_value, change_inside, change_key, change_lines, change_bytes])(rng, text)
    path = room.inside / rng.choice(["space.toml", "my space.toml", "Ä.toml", "-x.toml"])
    path.write_bytes(text.encode(errors="surrogateescape"))
    values = VALUES if number % 2 else SANE
    changes = {rng.choice(CHANGES): rng.choice(values) for _ in range(rng.randrange(1, 3))}
    seed = rng.randrange(1000)
    uses = {
        "load and walk": lambda: walk(load_space(str(path)), seed),
        "override": lambda: walk(load_space(str(path)).override(changes), seed),
    }
    return Case(maker.__name__.replace("_", " "), uses)


def walk(space: SearchSpace, seed: int) -> None:
    """Describe a space, and take a few configurations of every way through it."""
    described = space.describe()
    assert described.trials == space.planned() >= 1
    drawn = list(islice(space.random(3, seed), 3))
    assert len({config.key for config in drawn}) == len(drawn)
    if space.search.algorithm == "grid":
        drawn += islice(space.grid(), 5)
    drawn += [space.suggest(Picks(random.Random(seed))) for _ in range(2)]
    for config in drawn:
        assert TrialConfig.model_validate_json(config.model_dump_json()).key == config.key
        found = space.assignment(config)
        assert found is not None, f"{config} is not in the space"
        assert space.config(found).key == config.key


class Picks:
    """Picks as an optimiser would."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Pick one of ``choices``."""
        return self._rng.choice(choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Pick a whole number."""
        return self._rng.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Pick a number."""
        if step is None:
            return min(high, max(low, self._rng.uniform(low, high)))
        return low + step * self._rng.randrange(round((high - low) / step) + 1)
