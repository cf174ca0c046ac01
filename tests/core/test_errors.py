"""Exit codes, nearest names, and errors that travel between processes."""

from __future__ import annotations

import pickle

import pytest

from core import errors
from core.errors import NeuronMergingError, UnknownNameError, UsageError, nearest, shortened


def kinds() -> list[type[NeuronMergingError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NeuronMergingError)]


def test_exit_codes() -> None:
    assert len(kinds()) >= 7
    for kind in kinds():
        assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1)


@pytest.mark.parametrize("kind", kinds())
def test_they_travel_between_processes(kind: type[NeuronMergingError]) -> None:
    error = UnknownNameError("model", "vgg", ["vgg16"], "file: ") if kind is UnknownNameError else kind("it failed")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    ("name", "known", "tail"),
    [
        ("vgg61", ["vgg16", "lenet"], "did you mean 'vgg16'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "none is known"),
        ("--mean", ["--help", "--json", "--model", "--seed"], "known: --help, --json, --model, --seed"),
        ("--seeds", ["--seed", "--set"], "did you mean '--seed'?"),
        ("mnist", ["cifar10", "fashion-mnist"], "did you mean 'fashion-mnist'?"),
        ("alone", ["digits", "allocation"], "known: allocation, digits"),
    ],
)
def test_nearest(name: str, known: list[str], tail: str) -> None:
    assert nearest(name, known) == tail


def test_long_lists_and_odd_names_make_no_long_or_broken_message() -> None:
    told = str(UnknownNameError("trial", "x" * 10_000, [f"{number:05}" for number in range(1000)], "here: "))
    assert told.startswith("here: unknown trial 'xxx")
    assert told.endswith("00039 and 960 more")
    assert len(told) < 600
    assert nearest("q", ["a\nb"]) == r"known: 'a\nb'"


def test_shortened_is_one_line() -> None:
    assert shortened("a\n  b\u2028c\x1b[2J") == r"a b c\x1b[2J"
    assert shortened("x" * 200, 10) == "xxxxx…xxxxx"
