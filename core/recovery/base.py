"""What a recovery minimises, and the registry of them.

A recovery is a loss of the compressed network's outputs; everything else is `core.recovery.recover`:

    @register("distill")
    def distill(outputs: Tensor, wanted: Tensor) -> Tensor:
        return (outputs - wanted).square().mean()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""(outputs (n, …) of the compressed network, what is wanted) -> a number to minimise."""


@dataclass(frozen=True)
class Recovery:
    """A registered recovery.

    Attributes:
        loss: of outputs and what is wanted of them: the original's outputs, or with ``needs_labels`` the classes (n,).
            None: nothing is trained.
        needs_labels: whether it learns from labels.
        lr: peak learning rate of Adam.
    """

    loss: Loss | None
    needs_labels: bool = False
    lr: float = 3e-3


RECOVERIES: Registry[Recovery] = Registry("recovery", "core.recovery")


def register(name: str, *, needs_labels: bool = False, lr: float = 3e-3) -> Callable[[Loss], Loss]:
    """File a loss as the recovery ``name``."""

    def file(loss: Loss) -> Loss:
        RECOVERIES.register(name)(Recovery(loss, needs_labels, lr))
        return loss

    return file
