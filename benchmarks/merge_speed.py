"""How long merging takes: VGG-16 against plain loops over pairs of channels, torchvision's networks against pruning.

Run: ``python -m benchmarks.merge_speed [NETWORK …]``. One thread, random weights (the time does not depend on them), no
evaluation. Prints seconds and the ratio, both from this run. The loops are the obvious form of the published method:
for every removed channel, every kept one, one cosine, one scale and one bias distance. torch-pruning (installed for the
tests) only removes channels; it is timed from the bare network to the pruned one, on a copy made before, and so is
compress(); "further" is another ratio on what prepare() found. Images have 64 pixels, so that the time is not that of
running the network, which is done several times on either side. CPU time of the process, the best of REPEATS.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.compress import compress, prepare
from core.criteria.l1 import l1
from core.decompositions.most_similar import MostSimilar
from core.models import load_model

EXAMPLE = torch.zeros(1, 3, 32, 32)
SITES = ["feature.*"]
NETWORKS = ("resnet18", "resnet50", "vgg16_bn", "mobilenet_v2", "densenet121", "efficientnet_b0")
REPEATS = 2


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Best CPU time of ``repeats`` runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
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


@dataclass(frozen=True)
class Times:
    """CPU seconds for one network: pruned by torch-pruning, compressed from the bare network, and once more."""

    network: str
    pruned: float
    bare: float
    further: float

    def __str__(self) -> str:
        """One line of the table."""
        ratios = f"{self.bare / self.pruned:6.1f}x {self.further / self.pruned:8.1f}x"
        return f"{self.network:16} {self.pruned:14.2f} {self.bare:10.2f} {self.further:8.2f}   {ratios}"


def against_pruning(network: str, pruning: Any) -> Times:
    """Time both on one of torchvision's networks; ``pruning`` is the module torch_pruning."""
    import torchvision

    model, images = getattr(torchvision.models, network)(weights=None).eval(), torch.randn(1, 3, 64, 64)
    copies = [copy.deepcopy(model) for _ in range(REPEATS)]
    prepared = prepare(model, images)
    compress(prepared, images, ratio=0.6)
    ratios = [0.45, 0.55, 0.4][:REPEATS]

    def prune() -> None:
        pruned = copies.pop()
        last = [m for m in pruned.modules() if isinstance(m, torch.nn.Linear)][-1:]
        importance = pruning.importance.MagnitudeImportance(p=1)
        pruning.pruner.MagnitudePruner(
            pruned, images, importance=importance, pruning_ratio=0.5, ignored_layers=last
        ).step()

    return Times(
        network,
        pruned=seconds(prune, REPEATS),
        bare=seconds(lambda: compress(model, images, ratio=0.5), REPEATS),
        further=seconds(lambda: compress(prepared, images, ratio=ratios.pop()), REPEATS),
    )


def print_against_pruning(networks: Sequence[str]) -> None:
    """Print the table against torch-pruning."""
    try:
        import torch_pruning
    except ImportError:
        print("torch-pruning is not installed: no comparison with it")
        return
    print(f"{'CPU seconds':16} {'torch-pruning':>14} {'compress':>10} {'further':>8}   {'ratio':>7} {'further':>9}")
    for network in networks:
        print(against_pruning(network, torch_pruning), flush=True)


def main() -> None:
    """Print the tables; with names of networks, only the one against torch-pruning, of these."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch-pruning's
    if len(sys.argv) == 1:
        print_against_loops()
    print_against_pruning(sys.argv[1:] or NETWORKS)


@dataclass(frozen=True)
class Merging:
    """CPU seconds of merging a VGG-16 by half.

    Attributes:
        loops: scale matrices by loops over pairs of channels.
        products: the inner products of the weights of all sets, in float64.
        scales: scale matrices, from the inner products.
        bare: compress() of the bare network: trace, score, merge, cut, compare.
        further: compress() once more, on what has been prepared.
    """

    loops: float
    products: float
    scales: float
    bare: float
    further: float


def against_loops() -> Merging:
    """Time them, one after the other in this process."""
    model = load_model("vgg16", in_channels=3)
    prepared, method = prepare(model, EXAMPLE), MostSimilar()
    convolutions = [m.weight.detach().flatten(1) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    sets = prepared.channels.select(tuple(SITES))
    kept = [prepared.scores(s, "l1", None, 0, None).values.topk(s.size // 2).indices.sort().values for s in sets]
    found = [next(iter(prepared.signatures(s, covariances=False).values())) for s in sets]

    def products() -> object:
        return [w @ w.T for w in map(torch.Tensor.double, convolutions)]

    def scales() -> object:
        return [method.merge(signature, k) for signature, k in zip(found, kept, strict=True)]

    def merge(of: Any) -> object:
        return compress(of, EXAMPLE, ratio=0.5, sites=SITES)

    return Merging(
        loops=seconds(lambda: loops(model), 1),
        products=seconds(products, 3),
        scales=seconds(scales, 3),
        bare=seconds(lambda: merge(model), 3),
        further=seconds(lambda: merge(prepared), 3),
    )


def print_against_loops() -> None:
    """Print the table against loops over pairs of channels."""
    found = against_loops()
    print("merging VGG-16 by half, 13 convolutions, one core        seconds   ratio")
    for what, value in (
        ("loops over pairs of channels", found.loops),
        ("scale matrices, from the inner products", found.scales),
        ("inner products, in float64", found.products),
        ("compress(model): trace, score, merge, cut", found.bare),
        ("compress(prepared): a further trial on the same net", found.further),
    ):
        print(f"  {what:52}  {value:8.3f}   {found.loops / value:5.0f}x")


if __name__ == "__main__":
    main()
