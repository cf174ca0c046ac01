"""Colours, by name and without any library that draws.

The colours keep apart for the common kinds of colour blindness (after Okabe & Ito 2008), and no two neighbours in a
list are equally light, so that a grey print still tells them apart. On screens, where thin lines and small dots are
drawn in them, `ON_LIGHT` and `ON_DARK` have the same hues at a contrast of 3 and more against the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import TypeVar

from core.decompositions import DECOMPOSITIONS

Look = TypeVar("Look")
BASELINE = "none"
"""The decomposition that everything is compared with: first in legends, and grey."""

COLOURS = ("#858585", "#12357f", "#c43c14", "#f0b91e", "#5a2470", "#3f9fd8", "#0b6e5a", "#e48fb8", "#8a6a3a", "#9ccf5f")
ON_LIGHT = (
    "#7d7d7d",
    "#12357f",
    "#c43c14",
    "#b98600",
    "#6b2b86",
    "#2f8fcb",
    "#0b6e5a",
    "#cf5f97",
    "#8a6a3a",
    "#5f9a1f",
)
ON_DARK = ("#9aa0a8", "#7d9bf5", "#f2744c", "#f0b91e", "#bb8fe0", "#62bdf2", "#35b796", "#f0a3c8", "#cba56c", "#a8d86f")


def known_decompositions() -> list[str]:
    """The registered decompositions, `BASELINE` first."""
    return sorted(DECOMPOSITIONS.names(), key=lambda name: name != BASELINE)


def colours(present: Iterable[str], palette: Sequence[str] = COLOURS) -> dict[str, str]:
    """Give each decomposition ``present`` its colour; a registered one has the same colour in every picture."""
    return assign(known_decompositions(), present, palette)


def assign(known: Sequence[str], present: Iterable[str], looks: Sequence[Look]) -> dict[str, Look]:
    """Give every name of ``known``, and then any other one, the next look; return those of ``present``, in order."""
    wanted = set(present)
    names = [*known, *sorted(wanted - set(known))]
    return {name: look for name, look in zip(names, cycle(looks), strict=False) if name in wanted}
