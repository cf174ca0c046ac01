"""One sentence for what pydantic has to say: the field, its value, what is wrong with it, the nearest known word."""

from __future__ import annotations

from inspect import isclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from core.errors import nearest, shortened

MUST_BE = {
    "dict_type": "a table",
    "model_type": "a table, such as { values = [0.1, 0.2] }",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "made of letters, digits, dots, dashes and underscores only",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn the first complaint into ``field = value: why``."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "configuration"
    if first["type"] == "extra_forbidden":
        return f"unknown key {shortened(repr(field))}; {nearest(field, model.model_fields)}"
    why = shortened(_small(first["msg"]), 300)
    return f"{shortened(field)} = {shortened(repr(first.get('input')))}: {why}"


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn the first complaint about a file's table into ``key: what is wrong``, in the words of its format."""
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


def sentence(kind: str, message: str, given: object) -> str:
    """Say what is wrong with the value ``given``, from the ``kind`` and ``message`` of a complaint."""
    if kind in MUST_BE:
        return f"{_quote(given)} is not {MUST_BE[kind]}"
    if kind == "tuple_type":
        return f"{_quote(given)} is not a list; write [{given if _is_number(given) else _quote(given)}]"
    if kind == "too_short":
        return "is empty; name at least one"
    if message.startswith("Input should "):
        return f"{_quote(given)} {message.removeprefix('Input ')}"
    return f"{_quote(given)} is refused: {_small(message)}"


def _is_number(given: object) -> bool:
    """Whether a text is a number that somebody has put in quotes."""
    try:
        return isinstance(given, str) and float(given) == float(given)
    except ValueError:
        return False


def words(annotation: Any) -> list[str]:
    """Return the words of a ``Literal``, also where it stands in a dict's keys or an optional."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in words(part)]


def show(value: object) -> str:
    """Write a value as a person would in a table: ``true``, ``0.45``, ``layer*.conv1``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(show, value)) + "]"
    return str(value) if str(value).isprintable() else repr(value)


def _quote(value: object, most: int = 80) -> str:
    return shortened(repr(value) if isinstance(value, str) else show(value), most)


def _small(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}"


def _at(model: Any, loc: tuple[int | str, ...]) -> Any:
    """Follow ``loc`` down from ``model``: a field of a model, a value of a dict."""
    for part in loc:
        if isclass(model) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        elif get_origin(model) is dict:
            keys, values = get_args(model)
            model = values if get_origin(keys) is not Literal or part in get_args(keys) else keys
    return model
