"""The shape of a search-space file: its tables and keys. What the values mean is checked in `search_spaces.resolve`."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from inspect import isclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from core.errors import UsageError, nearest, shortened
from search_spaces.axis import show

Algorithm = Literal["grid", "random", "tpe", "nsga2"]
Metric = Literal[
    "accuracy",
    "loss",
    "accuracy_drop",
    "params",
    "macs",
    "bytes",
    "latency_ms",
    "params_fraction",
    "macs_fraction",
    "bytes_fraction",
    "latency_fraction",
]
"""What a trial measures (see `core.config.TrialRecord`)."""

Direction = Literal["max", "min"]

DEFAULT_OBJECTIVES: dict[Metric, Direction] = {"accuracy": "max", "params_fraction": "min"}

DEFAULT_SAMPLES = 100
"""How many configurations random, tpe and nsga2 try when the space does not say."""

MOST_TRIALS = 100_000
"""A grid of more is refused, unless ``samples`` takes fewer of it."""

LONGEST_KEY = 200
DEEPEST = 16
"""How many tables and lists may lie inside one another."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SearchDefaults(_Table):
    """How a sweep searches the space unless its command line says otherwise."""

    algorithm: Algorithm = "grid"
    samples: StrictInt | None = Field(
        None, ge=1, le=1_000_000, description="configurations to try; None: the whole grid"
    )
    objectives: dict[Metric, Direction] = Field(DEFAULT_OBJECTIVES, min_length=1)


class AxisTable(_Table):
    """One ``[axes.NAME]`` table: either ``values`` or a range, and the condition under which it counts."""

    values: tuple[Any, ...] | None = None
    low: Any = None
    high: Any = None
    step: Any = None
    log: StrictBool = False
    when: dict[str, tuple[Any, ...]] = Field(default_factory=dict)


class SpaceTable(_Table):
    """The whole file."""

    name: StrictStr = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    description: StrictStr = ""
    baseline: dict[str, Any]
    search: SearchDefaults = SearchDefaults()
    fixed: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, AxisTable] = Field(default_factory=dict)

    @classmethod
    def parse(cls, document: dict[str, Any], source: str) -> SpaceTable:
        """Check the tables and keys of ``document``; the first problem becomes a `UsageError` naming ``source``."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise UsageError(f"{source}: {complaint(error, cls)}") from None


def read_toml(path: Traversable, source: str) -> dict[str, Any]:
    """Read a TOML file; what cannot be read or parsed is a `UsageError` that names ``source`` and the line."""
    try:
        return parse_toml(path.read_text(encoding="utf-8"), f"{source}: ")
    except FileNotFoundError:
        raise UsageError(f"{source}: there is no such file; give the path of a .toml file or a bundled name") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{source}: cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: not valid TOML: {str(error)[0].lower()}{str(error)[1:]}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML whose numbers fit into 64 bits and whose tables are not nested without end.

    Raises:
        TOMLDecodeError: it is no TOML.
        UsageError: a number is too large, or the nesting too deep; the message begins with ``where``.
    """
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads no decimal number of thousands of digits
        raise _too_large(where) from None
    left: list[tuple[Any, int]] = [(document, 0)]
    while left:
        value, depth = left.pop()
        if depth > DEEPEST:
            raise _too_deep(where)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _too_large(where)
        if isinstance(value, dict) and any(len(key) > LONGEST_KEY for key in value):
            raise UsageError(f"{where}a key is longer than {LONGEST_KEY} characters; is a quote missing?")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [(part, depth + 1) for part in inner]
    return document


def _too_deep(where: str) -> UsageError:
    return UsageError(f"{where}tables or lists lie more than {DEEPEST} deep in one another; flatten them")


def _too_large(where: str) -> UsageError:
    return UsageError(f"{where}a whole number does not fit into 64 bits; give a smaller one")


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn pydantic's first complaint about a ``model`` into ``key: what is wrong``, with the nearest known word."""
    errors = error.errors(include_url=False)
    # a misspelt key is also a missing one: the misspelling is what helps
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    loc = tuple(part for part in first["loc"] if part != "[key]")
    key, given = shortened(".".join(map(str, loc))), first.get("input")
    match first["type"]:
        case "extra_forbidden":
            parent = _at(model, loc[:-1])
            return f"{key}: unknown key {loc[-1]!r}; {nearest(str(loc[-1]), parent.model_fields)}"
        case "literal_error":
            return f"{key}: {_quote(given)} is not known; {nearest(str(given), words(_at(model, loc)))}"
        case "missing":
            return f"{key}: is missing; every search space needs it"
    return f"{key}: {sentence(first['type'], first['msg'], given)}"


_MUST_BE = {
    "dict_type": "a table",
    "model_type": "a table, such as { values = [0.1, 0.2] }",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "made of letters, digits, dots, dashes and underscores only",
}


def sentence(kind: str, message: str, given: object) -> str:
    """Say what is wrong with the value ``given``, from the ``kind`` and ``message`` of a pydantic error."""
    if kind in _MUST_BE:
        return f"{_quote(given)} is not {_MUST_BE[kind]}"
    if kind == "tuple_type":
        return f"{_quote(given)} is not a list; write [{_quote(given)}]"
    if kind == "too_short":
        return "is empty; name at least one"
    if message.startswith("Input should "):
        return f"{_quote(given)} {message.removeprefix('Input ')}"
    message = message.removeprefix("Value error, ")
    return f"{_quote(given)} is refused: {message[0].lower()}{message[1:]}"


def _quote(value: object, most: int = 80) -> str:
    return shortened(repr(value) if isinstance(value, str) else show(value), most)


def words(annotation: Any) -> list[str]:
    """Return the words of a ``Literal``, also where it stands in a dict's keys or an optional."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in words(part)]


def _at(model: Any, loc: tuple[int | str, ...]) -> Any:
    """Follow ``loc`` down from ``model``: a field of a model, a value of a dict."""
    for part in loc:
        if isclass(model) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        elif get_origin(model) is dict:
            keys, values = get_args(model)
            model = values if get_origin(keys) is not Literal or part in get_args(keys) else keys
    return model
