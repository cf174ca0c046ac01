"""Checkpoints and exported files: cut, flipped, packed, with code, odd tensors, odd keys, false headers."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from core.checkpoint import load_checkpoint
from core.compress import compress
from core.export import load, read_metadata, save
from core.models import load_model
from tests.fuzz.files import Case, Room
from tests.fuzz.files_hostile import JSONS, flipped, mutated_json

State = dict[str, Tensor]
DTYPES = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)

NAMES = ("", "x" * 10**5, "a\nb", "\u2028", "0.weight ", "module.", "ключ", "\x1b[31m")
MODELS = (
    *("lenet-300-100", "vgg16", "resnet56", "wrn-40-4", "no-such", "torchvision:resnet18", "torchvision:no"),
    *("torchvision:resnet18@IMAGENET1K_V1", "os:system", "a:b", "", "\n"),
)


def net() -> nn.Module:
    """What checkpoints are loaded into; every number of it is 1, whatever was loaded before."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    for value in model.state_dict().values():
        value.fill_(1)
    return model


def state(seed: int = 1) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value.clone()
        for name, value in net().state_dict().items()
    }


def zipped(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@cache
def exported() -> bytes:
    """A small network as `core.export.save` writes it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        result = compress(load_model("lenet-300-100"), torch.zeros(2, 1, 28, 28), ratio=0.9, decomposition="none")
        return save(result.model, Path(folder) / "net").read_bytes()


@cache
def bases() -> dict[str, bytes]:
    plain = state()
    return {
        "safetensors": save_safetensors(plain),
        "torch": zipped(plain),
        "torch in a table": zipped({"epoch": 3, "state_dict": OrderedDict(plain)}),
        "old torch": zipped(plain, legacy=True),
        "exported": exported(),
    }


def cut(rng: random.Random, room: Room) -> bytes:
    content = rng.choice([*bases().values()])
    return content[: rng.choice([rng.randrange(len(content)), rng.randrange(64), len(content) - rng.randrange(1, 64)])]


def flip(rng: random.Random, room: Room) -> bytes:
    return flipped(rng, rng.choice([*bases().values()]))


def flip_head(rng: random.Random, room: Room) -> bytes:
    content = rng.choice([*bases().values()])
    most = min(len(content), 1200)
    return flipped(rng, content[:most]) + content[most:]


def magic(rng: random.Random, room: Room) -> bytes:
    content = rng.choice([*bases().values()])
    heads = [b"", b"PK", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"\x89HDF", b"GGUF", b"\x1f\x8b", rng.randbytes(9)]
    return rng.choice(heads) + content[rng.randrange(9) :]


def joined(rng: random.Random, room: Room) -> bytes:
    one, two = rng.choice([*bases().values()]), rng.choice([*bases().values()])
    return one[: rng.randrange(len(one))] + two[rng.randrange(len(two)) :]


class Code:
    """Leaves a file when it is unpickled."""

    def __init__(self, rng: random.Random, canary: Path) -> None:
        self._calls = rng.choice(
            [
                (os.system, (f"touch {canary}",)),
                (Path.touch, (canary,)),
                (eval, (f"open({str(canary)!r}, 'w')",)),
                (exec, (f"open({str(canary)!r}, 'w')",)),
                (open, (str(canary), "w")),
                (getattr, (canary, "touch")),
            ]
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return self._calls


def code(rng: random.Random, room: Room) -> bytes:
    evil = Code(rng, room.canary)
    content = rng.choice([evil, {"state_dict": evil}, {**state(), "x": evil}, {evil: 1}, [evil]])
    if rng.random() < 0.3:
        return pickle.dumps(content, protocol=rng.randrange(6))
    return zipped(content, legacy=rng.random() < 0.5)


def bomb(rng: random.Random, room: Room) -> bytes:
    big = torch.zeros(rng.randrange(10**5, 3 * 10**6))
    content = zipped(rng.choice([{"0.weight": big}, {**state(), "3.bias": big}, {**state(), "3.weight": big}]))
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
            new.writestr(name, old.read(name), method)
    return packed.getvalue()


def blank(rng: random.Random, room: Room) -> bytes:
    class Blank:
        def __reduce__(self) -> tuple[Any, ...]:
            return (bytearray, (rng.choice([10**8, 10**9, 10**10, 10**18]),))

    return zipped(rng.choice([{"a": Blank()}, {**state(), "a": Blank()}]), legacy=rng.random() < 0.5)


def false_sizes(rng: random.Random, room: Room) -> bytes:
    """A torch archive whose directory or pickle tells other sizes than there are."""
    content = bytearray(zipped(state()))
    for _ in range(rng.randrange(1, 4)):
        found = [i for i in range(len(content) - 4) if bytes(content[i : i + 4]) in (b"PK\x01\x02", b"PK\x03\x04")]
        place = rng.choice(found) + rng.choice([10, 14, 18, 20, 22, 24, 26, 28, 42])
        content[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 2**31, 2**32 - 1, rng.randrange(2**32)]))
    return bytes(content)


def odd_dtype(rng: random.Random, room: Room) -> bytes:
    plain = state()
    key, dtype = rng.choice([*plain]), rng.choice(DTYPES)
    try:
        plain[key] = torch.ones(plain[key].shape).to(dtype)
        return written(rng, plain)
    except (RuntimeError, TypeError, NotImplementedError, KeyError):  # not one that can be made, or saved so
        plain[key] = torch.full(plain[key].shape, rng.choice([1e300, -1e39, 70000.0]), dtype=torch.float64)
        return zipped(plain)


def odd_layout(rng: random.Random, room: Room) -> bytes:
    plain = state()
    square = torch.eye(3, 8)
    plain["3.weight"] = rng.choice(
        [
            lambda: square.to_sparse(),
            lambda: square.to_sparse_csr(),
            lambda: square.to_sparse_csc(),
            lambda: torch.eye(4).to_sparse_bsr(2),
            lambda: torch.quantize_per_tensor(square, 0.1, 0, torch.qint8),
            lambda: torch.quantize_per_channel(square, torch.ones(3), torch.zeros(3), 0, torch.quint8),
            lambda: torch.nested.nested_tensor([torch.ones(8)] * 3),
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            lambda: torch.empty(3, 8, device="meta"),
            lambda: torch.ones(1).expand(3, 8),
            lambda: torch.ones(1).expand(2**20, 2**20),
            lambda: torch.ones(8, 3).t(),
            lambda: nn.Parameter(square),
            lambda: torch.complex(square, square).conj(),
        ]
    )()
    return zipped(plain, legacy=rng.random() < 0.3)


def odd_keys(rng: random.Random, room: Room) -> bytes:
    plain: dict[Any, Any] = dict(state())
    names = [*plain]
    for _ in range(rng.randrange(1, 4)):
        match rng.randrange(6):
            case 0:
                plain.pop(rng.choice(names), None)
            case 1:
                plain[rng.choice(NAMES)] = torch.ones(2)
            case 3:
                plain = {f"module.{name}": value for name, value in plain.items()}
            case 4:
                plain[rng.choice(names)] = rng.choice([1, None, "x", [torch.ones(1)], {"a": torch.ones(1)}, {1, 2}])
            case 5:
                plain = rng.choice([{"state_dict": plain}, {"state_dict": {"state_dict": plain}}, {"model": plain}, {}])
    return zipped(plain, legacy=rng.random() < 0.3)


def odd_shapes(rng: random.Random, room: Room) -> bytes:
    plain = state()
    for key in rng.sample([*plain], rng.randrange(1, 3)):
        shape = [rng.choice([0, 1, 2, 3, 8, 9]) for _ in range(rng.randrange(6))]
        plain[key] = torch.ones(shape)
    return written(rng, plain)


def odd_values(rng: random.Random, room: Room) -> bytes:
    plain = state()
    key = rng.choice([*plain])
    worst = rng.choice([torch.nan, torch.inf, -torch.inf, 3e38, 1e-45])
    plain[key] = plain[key].float()
    plain[key].view(-1)[rng.randrange(plain[key].numel())] = worst
    return written(rng, plain)


def written(rng: random.Random, plain: State) -> bytes:
    if rng.random() < 0.4:
        return save_safetensors({name: value.contiguous() for name, value in plain.items()})
    return zipped(plain, legacy=rng.random() < 0.3)


def false_header(rng: random.Random, room: Room) -> bytes:
    content = save_safetensors(state())
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    match rng.randrange(6):
        case 0:
            false = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1, rng.randrange(2**64)])
            return false.to_bytes(8, "little") + content[8:]
        case 1:
            name = rng.choice([*header])
            header[name]["shape"] = [rng.choice([0, 1, -1, 2**31, 2**62, 2**64]) for _ in range(rng.randrange(5))]
        case 2:
            header[rng.choice([*header])]["data_offsets"] = [rng.choice([0, 4, -1, 2**40]), rng.choice([0, 4, 2**62])]
        case 3:
            dtypes = ["F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "BOOL", "C64", "U16", "U64", "I4", "", "X" * 1000]
            header[rng.choice([*header])]["dtype"] = rng.choice(dtypes)
        case 4:
            header = mutated_json(rng, header)
        case 5:
            header["__metadata__"] = rng.choice([1, [], {"a": 1}, {"a": None}, {"a": "x" * 10**6}])
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        text = b"{" + b'"a":{' * 50_000
    return len(text).to_bytes(8, "little") + text + data


def exported_header(rng: random.Random, room: Room) -> bytes:
    """An exported file with one to three of its header's fields or tensors replaced."""
    texts, tensors = opened()
    for _ in range(rng.randrange(1, 4)):
        field = rng.choice([*texts, "origin", "shared"])
        match rng.randrange(4):
            case 0:
                texts.pop(field, None)
            case 1:
                texts[field] = rng.choice([*JSONS, "{", "nul", "[" * 50_000, "9" * 5000, "\x00"])
            case 2:
                texts[field] = json.dumps(mutated_json(rng, parsed(texts.get(field, "{}"))))
            case 3:
                key = rng.choice([*tensors])
                shape = [rng.choice([0, 1, 5, 10, 30, 300, 784]) for _ in range(rng.randrange(4))]
                dtype = rng.choice([torch.float32, torch.float16, torch.int64, torch.float8_e5m2, torch.bool])
                tensors[key] = torch.zeros(shape).to(dtype)
    if rng.random() < 0.2:
        tensors.pop(rng.choice([*tensors]))
    if rng.random() < 0.3:
        names = [*tensors, "no.such", ""]
        texts["shared"] = json.dumps({rng.choice(names): rng.choice([*names, 3])})
    return save_safetensors(tensors, texts)


def opened() -> tuple[dict[str, str], State]:
    content = exported()
    length = int.from_bytes(content[:8], "little")
    from safetensors.torch import load as load_tensors

    return dict(json.loads(content[8 : 8 + length])["__metadata__"]), load_tensors(content)


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def exported_origin(rng: random.Random, room: Room) -> bytes:
    """An exported file that asks for another network."""
    texts, tensors = opened()
    texts["origin"] = json.dumps(
        {
            "name": rng.choice(MODELS),
            "num_classes": rng.choice([10, 1, 0, -1, 11, 10**6, 10**18, 10**400, 2.5, "10", None, True]),
            "in_channels": rng.choice([None, 1, 3, 0, -3, 10**6, 10**18, 1.0, "1", False]),
        }
    )
    return save_safetensors(tensors, texts)


MAKERS: tuple[Callable[[random.Random, Room], bytes], ...] = (
    cut,
    flip,
    flip_head,
    magic,
    joined,
    code,
    bomb,
    blank,
    false_sizes,
    odd_dtype,
    odd_layout,
    odd_keys,
    odd_shapes,
    odd_values,
    false_header,
    exported_header,
    exported_origin,
)


def make(rng: random.Random, number: int, room: Room) -> Case:
    """Case ``number``: the makers take turns."""
    maker = MAKERS[number % len(MAKERS)]
    path = room.inside / rng.choice(["w.pt", "w.safetensors", "weights", "w.pth.tar"])
    path.write_bytes(maker(rng, room))
    uses: dict[str, Callable[[], None]] = {"load_checkpoint": lambda: use_checkpoint(path)}
    if maker in (exported_header, exported_origin, flip_head, flip, cut):
        uses["export.load"] = lambda: use_exported(path)
        uses["export.read_metadata"] = lambda: use_metadata(path)
    return Case(maker.__name__.replace("_", " "), uses)


def use_checkpoint(path: Path) -> None:
    model = net()
    before = {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
    try:
        load_checkpoint(model, path)
    except BaseException:
        assert all(bool((value == 1).all()) for value in model.state_dict().values()), "it was partly loaded"
        raise
    after = model.state_dict()
    assert {name: (value.shape, value.dtype) for name, value in after.items()} == before, "shapes or dtypes changed"
    assert all(bool(torch.isfinite(value).all()) for value in after.values()), "a number is not finite"
    model(torch.ones(1, 1, 4, 4))


def use_exported(path: Path) -> None:
    model = load(path)
    try:
        output = model(torch.ones(2, 1, 28, 28, dtype=next(model.parameters()).dtype))
    except RuntimeError as error:
        raise AssertionError(f"what was built does not run: {error}") from error
    assert output.shape == (2, 10), "it is another network"


def use_metadata(path: Path) -> None:
    assert isinstance(read_metadata(path), dict)
