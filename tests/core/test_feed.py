"""Batches on their way: in order, whole, the same whether they travel ahead or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import core.feed
from core.feed import Feed
from core.measure import evaluate, logits_of, margins
from core.pixels import Images, Pixels, normalised

STORED = torch.randint(0, 256, (23, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
INPUTS = normalised(STORED, MEAN, STD)
ORDER = torch.randperm(23, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(23) % 5
IMAGES: dict[str, tuple[Images, Tensor]] = {
    "inputs": (INPUTS, INPUTS),
    "stored": (Pixels(STORED, MEAN, STD), INPUTS),
    "reordered": (Pixels(STORED.float() / 255, MEAN, STD, ORDER), INPUTS[ORDER]),
}


@pytest.fixture(params=[False, True], ids=["when-asked", "ahead"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(core.feed, "travels", lambda device: request.param)
    return bool(request.param)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 5)).eval()


@pytest.mark.parametrize("size", [1, 7, 23, 50])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kind", IMAGES)
def test_batches_are_the_images_in_memory_of_their_own(ahead: bool, kind: str, layout: Any, size: int) -> None:
    images, wanted = IMAGES[kind]
    before, found = wanted.clone(), []
    feed = Feed(images, size, "cpu", layout)
    assert len(feed) == -(-23 // size)
    for number in range(len(feed)):
        batch = feed.take(number)
        feed.send(number + 1)
        assert batch.is_contiguous(memory_format=layout)
        assert torch.equal(batch, wanted[feed.part(number)])
        found.append(len(batch))
        batch.zero_()
    assert sum(found) == 23
    assert torch.equal(wanted, before)
    assert torch.equal(images[:], wanted)


@pytest.mark.parametrize("kind", IMAGES)
def test_evaluations_are_the_same(ahead: bool, kind: str) -> None:
    images, wanted = IMAGES[kind]
    net = network()
    with torch.no_grad():
        logits = net(wanted.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits_of(net, images, 6), logits)
    evaluation = evaluate(net, images, LABELS, 6)
    assert evaluation.right == {n: int((logits.argmax(1) == LABELS)[:n].sum()) for n in (6, 12, 18, 23)}
    assert evaluation.loss == pytest.approx(float(nn.functional.cross_entropy(logits, LABELS, reduction="sum")))
    assert margins(net, images, LABELS, 6).shape == (23,)
    assert evaluate(net, images, LABELS, 6, enough=lambda right, seen: seen > 10).images == 12


class Told(Feed):
    """Says when a batch sets off."""

    events: list[str]

    def _moved(self, number: int) -> Tensor:
        self.events.append(f"moves {number}")
        return super()._moved(number)


def test_the_next_one_travels_before_anybody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    events = Told.events = []
    monkeypatch.setattr(core.feed, "travels", lambda device: True)
    monkeypatch.setattr("core.measure.Feed", Told)
    net = network()
    net.register_forward_hook(lambda *_: events.append("computes"))

    def look(right: int, seen: int) -> bool:
        events.append(f"looked at {seen}")
        return False

    evaluate(net, INPUTS, LABELS, 10, enough=look)
    assert events == [
        "computes",  # one image, for the layout
        *("moves 0", "computes", "moves 1", "looked at 10"),
        *("computes", "moves 2", "looked at 20", "computes"),
    ]


def test_one_without_room_travels_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]

    class Narrow(Feed):
        def _moved(self, number: int) -> Tensor:
            if full[0]:
                raise torch.OutOfMemoryError("no room")
            return super()._moved(number)

    monkeypatch.setattr(core.feed, "travels", lambda device: True)
    feed = Narrow(INPUTS, 10, "cpu", torch.contiguous_format)
    feed.send(1)
    with pytest.raises(torch.OutOfMemoryError):
        feed.take(1)
    full[0] = False
    assert torch.equal(feed.take(1), INPUTS[10:20])
    feed.send(3)
    assert feed._sent == {}, "there is no such batch"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kind", IMAGES)
def test_a_gpu_gets_the_same(kind: str) -> None:
    images, wanted = IMAGES[kind]
    feed = Feed(images, 7, "cuda", torch.channels_last)
    for number in range(len(feed)):
        batch = feed.take(number)
        feed.send(number + 1)
        torch.testing.assert_close(batch.cpu(), wanted[feed.part(number)])
