"""LeNet-300-100 that hangs at one or two sizes, for the faults: named as ``tests.sweep.hanging_model:make``."""

from __future__ import annotations

import itertools
import os
import time

from torch import Tensor, nn

from core.models.lenet import LeNet300100

PYTHON, C = "HANG_PYTHON", "HANG_C"
"""Environment variables: how many channels of ``ip1`` make the network sleep, or compute for ever inside C."""


class HangingLeNet(LeNet300100):
    """Hangs in ``forward`` when ``ip1`` has one of two numbers of channels; otherwise it is its parent."""

    def forward(self, x: Tensor) -> Tensor:
        if self.ip1.out_features == int(os.environ.get(PYTHON, 0)):
            time.sleep(1e6)
        if self.ip1.out_features == int(os.environ.get(C, 0)):
            sum(itertools.repeat(0, 10**15))  # never looks at signals
        return super().forward(x)


def make() -> nn.Module:
    return HangingLeNet()
