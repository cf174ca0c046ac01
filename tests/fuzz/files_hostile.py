"""Values and mutations that any of the hostile files may hold."""

from __future__ import annotations

import copy
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**64), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.5, -0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "l1", "none", "../../x", "/etc/passwd", "..", "a\nb", "\x00", "\x1b[2J", "é" * 50, "x" * 100_000),
    *("1e999", "nan", "true", "[]", "{}", "%s%n", "'; drop table runs; --", "\ud800", "\u2028"),
    *([], [[]], [1], ["l1"], ["a\nb"], [None], [[[[[[1]]]]]], {}, {"a": {}}, {"criterion": ["l1"]}, {"": ""}),
)
"""What JSON can hold where something else is expected."""

JSONS = ("null", "true", "0", "-1", "1e999", "NaN", '""', '"x"', "[]", "{}", "[1]", '{"a": 1}', '{"": null}', "[[[]]]")


def flipped(rng: random.Random, content: bytes) -> bytes:
    """``content`` with a few bits, bytes or ranges changed."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not changed:
            break
        place = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place] = rng.randrange(256)
            case 2:
                changed[place : place + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
            case 3:
                changed[place : place + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"9" * 8])
    return bytes(changed)


def mutated_json(rng: random.Random, document: Any) -> Any:
    """A copy of ``document`` with one to three values replaced, taken away, added or renamed, at any depth."""
    changed = copy.deepcopy(document)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_places(changed))
        if not places:
            return hostile(rng)
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(hostile(rng))[:50]] = hostile(rng)
            case 2 if isinstance(holder, dict):
                holder[f"{key}x"] = holder.pop(key)
            case _:
                holder[key] = hostile(rng)
    return changed


def hostile(rng: random.Random) -> Any:
    """One of `VALUES`, a copy."""
    return copy.deepcopy(rng.choice(VALUES))


def _places(document: Any) -> Any:
    """(dict or list, key or index) of every value in a document, itself left out."""
    if not isinstance(document, dict | list):
        return
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield document, key
        yield from _places(value)
