"""The shape of a search-space file: its tables and keys. What the values mean is checked in `search_spaces.build`."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from importlib.resources.abc import Traversable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from core.complaints import complaint
from core.errors import UnknownNameError, UsageError, nearest, shortened
from core.evaluators import Evaluator, find_evaluator
from core.evaluators.base import CLASSIFICATION
from core.files import NAME
from core.metrics import METRICS, Direction
from core.records import EvalSplit, Precision
from search_spaces.algorithms import ALGORITHMS, GRID

DEFAULT_SAMPLES = 100
"""How many configurations random, tpe and nsga2 try when the space does not say."""

MOST_TRIALS = 100_000
"""A grid of more is refused, unless ``samples`` takes fewer of it."""

LONGEST_KEY = 200
DEEPEST = 16
"""How many tables and lists may lie inside one another."""

TOO_DEEP = f"tables or lists lie more than {DEEPEST} deep in one another; flatten them"
TOO_LARGE = "a whole number does not fit into 64 bits; give a smaller one"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SearchDefaults(_Table):
    """How a sweep searches the space unless its command line says otherwise."""

    algorithm: StrictStr = Field(GRID, description="what draws the configurations")
    samples: StrictInt | None = Field(
        None, ge=1, le=1_000_000, description="configurations to try; None: the whole grid"
    )
    objectives: dict[str, Direction] | None = Field(
        None,
        min_length=1,
        description="metric -> whether it is to be large or small; left out: the evaluator's score and params_fraction",
    )
    start: Literal["", "budget"] = Field(
        "", description="budget: try first what budgets of several sizes spend on the layers; all axes are ratios then"
    )


class EvaluationTable(_Table):
    """What trials are evaluated on; the test split is left to the front, unless a space says otherwise."""

    split: EvalSplit = Field("validation", description="part of the dataset")
    evaluator: StrictStr = Field(
        CLASSIFICATION,
        description="classification, by labels; per-class; agreement, with the original; segmentation; task, what a"
        " Task brings; or `module:function` of your own",
    )
    metric: StrictStr | None = Field(None, description="of an evaluator of your own: what it gives first (score)")
    direction: Direction | None = Field(None, description="of that: whether it is to be large (max) or small")
    unit: StrictStr | None = Field(None, max_length=20, description="of that; '%' is from 0 to 100")
    autocast: Precision | None = Field(
        None, description="what evaluation's forward passes compute in where torch's autocast holds that safe"
    )

    def scored(self, where: str = "") -> Evaluator:
        """What trials are scored by.

        Raises:
            UnknownNameError: there is no such evaluator; the message begins with ``where``.
            UsageError: its metric is refused.
        """
        try:
            return find_evaluator(self.evaluator, self.metric, self.direction, self.unit)
        except UnknownNameError as error:
            raise UnknownNameError(error.kind, error.name, error.known, f"{where}evaluator: ") from None
        except UsageError as error:
            raise UsageError(f"{where}{error}") from None


class AxisTable(_Table):
    """One ``[axes.NAME]`` table: either ``values`` or a range, and the condition under which it counts."""

    values: tuple[Any, ...] | None = Field(None, description="what is tried")
    low: Any = Field(None, description="where a range begins")
    high: Any = Field(None, description="where it ends")
    step: Any = Field(None, description="between two of its numbers; left out: any number (and then no grid)")
    log: StrictBool = Field(False, description="draw small numbers as often as large ones, per factor")
    when: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="name of another axis -> its values under which this one counts"
    )


class SpaceTable(_Table):
    """The whole file."""

    name: StrictStr = Field(pattern=f"^{NAME}$", max_length=200, description="of the space; left out: the file's")
    description: StrictStr = Field("", description="one line")
    baseline: dict[str, Any] = Field(description="the original network and its data")
    search: SearchDefaults = Field(SearchDefaults(), description="how the space is searched")
    evaluation: EvaluationTable = Field(EvaluationTable(), description="what trials are evaluated on")
    fixed: dict[str, Any] = Field(default_factory=dict, description="name -> the value that every configuration has")
    axes: dict[str, AxisTable] = Field(default_factory=dict, description="name -> what varies")
    defaults: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="decomposition -> its options where neither fixed nor axes say them; a sweep writes down those it"
        " begins with, and goes on with them when later releases have others",
    )

    @classmethod
    def parse(cls, document: dict[str, Any], source: str) -> SpaceTable:
        """Check the tables and keys of ``document``.

        Raises:
            UsageError: the first thing that is wrong, with ``source`` and the key.
        """
        try:
            table = cls.model_validate(document)
        except ValidationError as error:
            raise UsageError(f"{source}: {complaint(error, cls)}") from None
        _require(table.search.algorithm, ALGORITHMS.names(), f"{source}: search.algorithm: ")
        table.evaluation.scored(f"{source}: evaluation.")  # whose metric may be an objective
        for name in table.search.objectives or ():
            _require(name, METRICS, f"{source}: search.objectives.{shortened(name)}: ")
        return table


def _require(word: str, known: Collection[str], where: str) -> None:
    if word not in known:
        raise UsageError(f"{where}{shortened(repr(word), 80)} is not known; {nearest(word, known)}")


def read_toml(path: Traversable, source: str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: it cannot be read or parsed; the message names ``source`` and the line.
    """
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"), f"{source}: ")
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
        raise UsageError(where + TOO_DEEP) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads no decimal number of thousands of digits
        raise UsageError(where + TOO_LARGE) from None
    left: list[tuple[Any, int]] = [(document, 0)]
    while left:
        value, depth = left.pop()
        if depth > DEEPEST:
            raise UsageError(where + TOO_DEEP)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UsageError(where + TOO_LARGE)
        if isinstance(value, dict) and any(len(key) > LONGEST_KEY for key in value):
            raise UsageError(f"{where}a key is longer than {LONGEST_KEY} characters; is a quote missing?")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [(part, depth + 1) for part in inner]
    return document
