"""A training that was broken off goes on: everything that its next step depends on, in one file, epoch by epoch.

The file is read without unpickling (`torch.load` with ``weights_only``), replaced at once or not at all, and gone when
the training is done. Whoever continues gets the weights of one that was never broken off, to the bit.
"""

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.files import writing

SAVE_SECONDS = 5.0
"""Epochs that follow one another faster are not all kept."""
FORMAT, VERSION = 1, str(torch.__version__)


@dataclass
class Continuation:
    """Where a training is kept while it is under way.

    Attributes:
        path: of the file.
        about: what the training is of (network, recipe, data); a file about something else is not continued.
    """

    path: Path
    about: str
    _saved_at: float = field(default_factory=time.monotonic)

    def load(self, parts: dict[str, Any], device: str) -> dict[str, Any]:
        """Bring the parts of a training to where it was left; the plain values that were kept, or nothing.

        Without a file, or with one that is damaged or about something else, the parts stay as they are.
        """
        if not self.path.is_file():
            return {}
        before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            found = torch.load(self.path, map_location=device, weights_only=True)
            if found["format"] != FORMAT or found["about"] != self.about or found["torch"] != VERSION:
                return {}
            values: dict[str, Any] = found["values"]
            for name, part in parts.items():
                part.load_state_dict(found["parts"][name])
        except Exception:  # whatever torch makes of a damaged file, the training begins anew
            for name, part in parts.items():
                part.load_state_dict(before[name])
            return {}
        return values

    def save(self, parts: dict[str, Any], values: dict[str, Any]) -> None:
        """Keep the state after an epoch, if the last one is some seconds old; a full disk stops no training."""
        if time.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        whole = {"format": FORMAT, "about": self.about, "torch": VERSION, "parts": state, "values": values}
        with contextlib.suppress(Exception), writing(self.path) as temporary:
            torch.save(whole, temporary)
        self._saved_at = time.monotonic()

    def done(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def random_state(rng: torch.Generator, device: str) -> dict[str, Any]:
    """The state of everything that draws at random while a network is trained."""
    own = {"order": rng.get_state(), "default": torch.default_generator.get_state()}
    return own | ({"cuda": torch.cuda.get_rng_state(device)} if torch.device(device).type == "cuda" else {})


def set_random_state(state: dict[str, Any], rng: torch.Generator, device: str) -> None:
    """Bring everything that draws at random back to a state."""
    rng.set_state(state["order"].cpu())
    torch.default_generator.set_state(state["default"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
