"""The methods once more, as slow and obvious loops in float64 on numpy arrays: what the fast code is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def scores(criterion: str, w: np.ndarray) -> np.ndarray:
    out = []
    for i in range(len(w)):
        if criterion == "l1":
            out.append(sum(abs(v) for v in w[i]))
        elif criterion == "l2":
            out.append(math.sqrt(sum(v * v for v in w[i])))
        elif criterion == "geometric-median":
            out.append(sum(math.dist(w[i], w[j]) for j in range(len(w))))
        else:
            raise KeyError(f"no oracle for criterion {criterion!r}")
    return np.array(out)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def normalised(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [0.0 if high == low else (v - low) / (high - low) for v in values]


def most_similar(w: np.ndarray, kept: list[int], threshold: float) -> np.ndarray:
    """Z (n, k) without batch norm: the most similar kept row, scaled by the ratio of norms."""
    z = np.zeros((len(w), len(kept)))
    for i in range(len(w)):
        if i in kept:
            z[i, kept.index(i)] = 1.0
            continue
        cosines = [cosine(w[i], w[j]) for j in kept]
        best = int(np.argmax(cosines))
        if cosines[best] >= threshold:
            z[i, best] = np.linalg.norm(w[i]) / np.linalg.norm(w[kept[best]])
    return z


def most_similar_exact(
    w: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, eps: float,
    kept: list[int], threshold: float, lam: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Z (n, k) and the offsets (n,) behind a ReLU, from the algebra of batch norm."""
    n = len(w)
    std = [math.sqrt(v + eps) for v in var]
    rows = [gamma[i] / std[i] * w[i] for i in range(n)]
    constants = [beta[i] - gamma[i] * mean[i] / std[i] for i in range(n)]
    z, offset = np.zeros((n, len(kept))), np.zeros(n)
    for i in range(n):
        if i in kept:
            z[i, kept.index(i)] = 1.0
            continue
        candidates = [j for j in kept if cosine(rows[i], rows[j]) > 0]
        if not candidates:
            continue
        scale = {j: np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]) for j in candidates}
        distance = normalised([abs(constants[i] - scale[j] * constants[j]) for j in candidates])
        score = [
            lam * (1 - cosine(rows[i], rows[j])) + (1 - lam) * d for j, d in zip(candidates, distance, strict=True)
        ]
        j = candidates[int(np.argmin(score))]
        if cosine(rows[i], rows[j]) < threshold:
            continue
        z[i, kept.index(j)] = scale[j]
        offset[i] = relu_mean(beta[i], abs(gamma[i])) - scale[j] * relu_mean(beta[j], abs(gamma[j]))
    return z, offset


def relu_mean(mean: float, std: float) -> float:
    """E[max(0, y)] for y ~ N(mean, std²), by numerical integration."""
    y = np.linspace(mean - 12 * std, mean + 12 * std, 200_001)
    density = np.exp(-0.5 * ((y - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    return float(np.trapezoid(np.maximum(y, 0) * density, y))


def front(points: list[tuple[float, float]]) -> set[int]:
    """Indices of the points (size, accuracy) that no other one dominates; of equal points the first."""
    found = set()
    for i, (x, y) in enumerate(points):
        better = any((a <= x and b >= y) and (a < x or b > y) for a, b in points)
        if not better and (x, y) not in points[:i]:
            found.add(i)
    return found


def hypervolume(points: list[tuple[float, float]], reference: tuple[float, float], cells: int = 400) -> float:
    """Area dominated within the reference, by counting the cells of a grid."""
    x_ref, y_ref = reference
    top = max([y for _, y in points], default=y_ref)
    xs = (np.arange(cells) + 0.5) / cells * x_ref
    ys = y_ref + (np.arange(cells) + 0.5) / cells * (top - y_ref)
    covered = np.zeros((cells, cells), dtype=bool)
    for x, y in points:
        covered |= (xs[:, None] >= x) & (ys[None, :] <= y)
    return float(covered.mean() * x_ref * (top - y_ref))


def ridge_regression(targets: np.ndarray, given: np.ndarray, penalty: float) -> np.ndarray:
    """B (r, k) that minimises |t − B·g|² summed over columns plus penalty·|B|², for targets (r, m) and given (k, m)."""
    k = len(given)
    left = np.concatenate([given.T, math.sqrt(penalty) * np.eye(k)])
    out = []
    for t in targets:
        right = np.concatenate([t, np.zeros(k)])
        out.append(np.linalg.lstsq(left, right, rcond=None)[0])
    return np.array(out).reshape(len(targets), k)


def combined(rows: np.ndarray, kept: list[int], damping: float) -> np.ndarray:
    """Z (n, k): identity on the kept rows, ridge combinations of these on the others."""
    gone = [i for i in range(len(rows)) if i not in kept]
    penalty = damping * sum(float(rows[j] @ rows[j]) for j in kept) / len(kept)
    z = np.zeros((len(rows), len(kept)))
    for place, j in enumerate(kept):
        z[j, place] = 1.0
    for i, combination in zip(gone, ridge_regression(rows[gone], rows[kept], penalty), strict=True):
        z[i] = combination
    return z


def second_moment(phi: Callable[[float], float], means: list[float], cov: np.ndarray, points: int = 801) -> float:
    """E[φ(y₁)·φ(y₂)] of two Gaussian variables, by adding up over a grid of two independent ones."""
    z = np.linspace(-8, 8, points)
    weight = np.exp(-0.5 * z**2)
    weight /= weight.sum()
    a = math.sqrt(cov[0, 0])
    b, c = cov[0, 1] / a, math.sqrt(max(0.0, cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0]))
    total = 0.0
    for first, w in zip(z, weight, strict=True):
        inner = sum(v * phi(means[1] + b * first + c * second) for second, v in zip(z, weight, strict=True))
        total += w * phi(means[0] + a * first) * inner
    return total


def folded(rows: np.ndarray, kept: list[int], scales: bool, repair: bool, pinned: bool) -> tuple[list[int], np.ndarray]:
    """Labels of the clusters and what every channel becomes (n, fan_in), with k-means on the rows themselves."""
    n, length = len(rows), [math.sqrt(float(r @ r)) for r in rows]
    points = [rows[i] / length[i] if scales else rows[i] for i in range(n)]
    weights = [length[i] ** 2 if scales else 1.0 for i in range(n)]
    centres = [points[j] for j in kept]
    labels: list[int] = []
    for _ in range(31):
        new = [int(np.argmin([float((points[i] - c) @ (points[i] - c)) for c in centres])) for i in range(n)]
        if pinned:
            for place, j in enumerate(kept):
                new[j] = place
        assert len(set(new)) == len(kept), "no cluster of these is ever empty"
        if new == labels:
            break
        labels = new
        centres = []
        for c in range(len(kept)):
            members = [i for i in range(n) if labels[i] == c]
            centres.append(sum(weights[i] * points[i] for i in members) / sum(weights[i] for i in members))
    made = np.zeros_like(rows)
    for c, j in enumerate(kept):
        members = [i for i in range(n) if labels[i] == c]
        mean_length = sum(length[i] for i in members) / len(members)
        if pinned:
            centre, wanted = rows[j], length[j]
        else:
            shares = [length[i] if scales else 1.0 for i in members]
            centre = sum(s * rows[i] for s, i in zip(shares, members, strict=True)) / sum(shares)
            wanted = mean_length
            if repair:
                own = math.sqrt(float(centre @ centre))
                centre = centre * min(mean_length / own, math.sqrt(len(members)))
        for i in members:
            factor = 1.0
            if scales:
                factor = length[i] / wanted if repair else max(0.0, float(rows[i] @ centre) / float(centre @ centre))
            made[i] = rows[i] if pinned and i == j else factor * centre
    return labels, made


def lost(x: np.ndarray, w: np.ndarray, gone: list[int], taps: int, damping: float, *, centred: bool) -> float:
    """Share of E‖Wx‖² that is lost without some channels, with the weights of the others refitted from scratch."""
    x = x - x.mean(0) if centred else x
    h = x.T @ x / len(x)
    damped = h + damping * np.diag(h).mean() * np.eye(len(h))
    columns = [channel * taps + tap for channel in gone for tap in range(taps)]
    rest = [column for column in range(w.shape[1]) if column not in columns]
    left = damped[np.ix_(columns, columns)]
    if rest:
        left = left - damped[np.ix_(columns, rest)] @ np.linalg.solve(
            damped[np.ix_(rest, rest)], damped[np.ix_(rest, columns)]
        )
    return float(np.trace(w[:, columns] @ left @ w[:, columns].T) / np.trace(w @ h @ w.T))


def elimination(
    readers: list[tuple[np.ndarray, np.ndarray, bool]], size: int, taps: int, damping: float
) -> tuple[list[int], np.ndarray]:
    """Backward elimination by trying every channel at every step: the order, and what is lost after each removal."""
    order: list[int] = []
    costs = []
    while len(order) < size:
        tried = {
            channel: sum(lost(x, w, [*order, channel], taps, damping, centred=centred) for x, w, centred in readers)
            for channel in range(size)
            if channel not in order
        }
        best = min(tried, key=lambda channel: tried[channel])
        order.append(best)
        costs.append(tried[best])
    return order, np.array(costs)
