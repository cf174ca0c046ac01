"""What a calibration source is asked for and what it returns, and the registry of them.

A source is a function of what is wanted, and gives images as the network takes them, without labels:

    @register("noise")
    def noise(wanted: Wanted) -> Tensor:
        return torch.randn(wanted.count, *wanted.shape, generator=wanted.generator)

One that has something behind a colon says what (``folder:PATH``), and one that looks at files of the machine which
starts a sweep says how they are collected there:

    @register("folder", takes="PATH", collect=pictures)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.errors import UsageError
from core.lazy import torch
from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from core.pixels import Images

Shape = tuple[int, int, int]
"""(C, H, W) of one image."""


@dataclass(frozen=True)
class Scale:
    """How pixels in [0, 1] become inputs: (pixel − mean) / std.

    Attributes:
        mean: per channel.
        std: per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: Tensor) -> Tensor:
        """The inputs (n, C, H, W) that pixels in [0, 1] give."""
        return (pixels - self._column(self.mean)) / self._column(self.std)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the largest input of each channel (C, 1, 1)."""
        return self.apply(torch.zeros(1)), self.apply(torch.ones(1))

    @staticmethod
    def _column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


@dataclass(frozen=True)
class Wanted:
    """What a source is asked for.

    Attributes:
        shape: (C, H, W) of one image.
        count: how many images; fewer are fine where there are no more.
        generator: of every random draw.
        pool: normalised training images (N, C, H, W), or stored ones that become so; None: there are none.
        model: the original network in eval mode, never changed; None: it is not known.
        scale: how the network's images are normalised; None: it is not known.
        text: what stands behind the colon of the source's name.
        collected: what the source's ``collect`` gave; None: it was not asked.
    """

    shape: Shape
    count: int
    generator: torch.Generator
    pool: Images | None = None
    model: nn.Module | None = None
    scale: Scale | None = None
    text: str = ""
    collected: Tensor | None = None


Draw = Callable[[Wanted], "Tensor"]
"""what is wanted -> inputs (n, C, H, W), normalised as the network takes them, n ≤ count."""
Collect = Callable[[str, Shape], "Tensor"]
"""(the text behind the colon, shape of one image) -> everything to draw from, once for a whole sweep."""


@dataclass(frozen=True)
class CalibrationSource:
    """A registered source.

    Attributes:
        draw: gives the images.
        takes: what stands behind the colon of its name, for messages; empty: it has none.
        collect: where it looks at files: reads them, so that workers on other machines can draw without them.
    """

    draw: Draw
    takes: str = ""
    collect: Collect | None = None


CALIBRATIONS: Registry[CalibrationSource] = Registry("calibration", "core.calibration")


def register(name: str, *, takes: str = "", collect: Collect | None = None) -> Callable[[Draw], Draw]:
    """File a function as the source ``name``."""

    def file(draw: Draw) -> Draw:
        CALIBRATIONS.register(name)(CalibrationSource(draw, takes, collect))
        return draw

    return file


def find_source(name: str, where: str = "") -> tuple[CalibrationSource, str]:
    """The source that ``name`` or ``name:TEXT`` asks for, and the text.

    Raises:
        UnknownNameError: nobody registered it; the message begins with ``where``.
        UsageError: a text is missing or not taken.
    """
    head, colon, text = name.partition(":")
    CALIBRATIONS.require(head, where)
    source = CALIBRATIONS.get(head)
    if source.takes and not text.strip():
        raise UsageError(f"{where}calibration {name!r}: write {head}:{source.takes}")
    if colon and not source.takes:
        raise UsageError(f"{where}calibration {name!r}: {head} takes nothing behind a colon; write {head}")
    return source, text


def draw(name: str, wanted: Wanted) -> Tensor:
    """The images of the source that ``name`` asks for."""
    source, text = find_source(name)
    return source.draw(replace(wanted, text=text))
