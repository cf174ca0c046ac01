"""How long merging VGG-16 takes (13 convolutions, half the channels kept), against plain loops over pairs of channels.

Run: ``python -m benchmarks.merge_speed``. One thread, random weights (the time does not depend on them), no evaluation.
Prints seconds and the ratio, both from this run. The loops are the obvious form of the published method: for every
removed channel, every kept one, one cosine, one scale and one bias distance.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from core.compress import compress, prepare
from core.criteria.l1 import l1
from core.models import load_model

EXAMPLE = torch.zeros(1, 3, 32, 32)
SITES = ["feature.*"]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Best wall-clock time of ``repeats`` runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def loops(model: Any) -> list[torch.Tensor]:
    """The scale matrices of all 13 convolutions, pair by pair."""
    features = model.feature
    return [
        _scale_matrix(features[i].weight.detach().flatten(1), features[i + 1])
        for i, layer in enumerate(features)
        if isinstance(layer, torch.nn.Conv2d)
    ]


def _scale_matrix(w: torch.Tensor, norm: Any, lam: float = 0.85, threshold: float = 0.1) -> torch.Tensor:
    keep = torch.argsort(l1(w), descending=True)[: len(w) // 2].sort().values.tolist()
    gamma, beta, mean, var = (t.tolist() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
    rows, z = w.numpy(), torch.zeros(len(w), len(keep))
    for i in range(len(w)):
        if i in keep:
            z[i, keep.index(i)] = 1.0
            continue
        cosines, scales, biases = [], [], []
        for j in keep:
            size_i, size_j = (rows[i] @ rows[i]) ** 0.5, (rows[j] @ rows[j]) ** 0.5
            std_i, std_j = (var[i] + norm.eps) ** 0.5, (var[j] + norm.eps) ** 0.5
            scale = size_i / size_j * (gamma[i] / gamma[j]) * (std_j / std_i)
            cosines.append(rows[i] @ rows[j] / (size_i * size_j))
            scales.append(scale)
            biases.append(abs(beta[i] - gamma[i] * mean[i] / std_i - scale * (beta[j] - gamma[j] * mean[j] / std_j)))
        width = max(biases) - min(biases) or 1.0
        scores = [lam * (1 - c) + (1 - lam) * (b - min(biases)) / width for c, b in zip(cosines, biases, strict=True)]
        best = min(range(len(keep)), key=scores.__getitem__)
        if cosines[best] >= threshold:
            z[i, best] = float(scales[best])
    return z


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model = load_model("vgg16", in_channels=3)
    prepared = prepare(model, EXAMPLE)

    def once() -> object:
        return compress(model, EXAMPLE, ratio=0.5, sites=SITES)

    def again() -> object:
        return compress(prepared, EXAMPLE, ratio=0.5, sites=SITES)

    slow, fast, warm = seconds(lambda: loops(model), 1), seconds(once, 3), seconds(again, 3)
    print("merging VGG-16 by half, 13 convolutions, one core        seconds   ratio")
    print(f"  loops over pairs of channels                          {slow:8.2f}       1")
    print(f"  compress(model): trace, score, merge, cut             {fast:8.2f}   {slow / fast:5.0f}x")
    print(f"  compress(prepared): a further trial on the same net   {warm:8.2f}   {slow / warm:5.0f}x")


if __name__ == "__main__":
    main()
