"""Write networks of a sweep as files: rebuilt from their records, measured again, with a card."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import NeuronMergingError, UsageError
from sweep.arguments import Parser, listed
from sweep.errors import masked
from sweep.storage.layout import EXPORT

if TYPE_CHECKING:
    from core.records import TrialRecord
    from sweep.export.rebuild import Rebuilder
    from sweep.export.write import Written
    from sweep.storage.reader import StoredSweep

FORMS = ("safetensors", "pt2", "onnx")
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}", re.ASCII | re.IGNORECASE)
"""What MLflow takes for one; v1 and latest mean something else there."""
EXAMPLE = "sweep export lenet-fashion-mnist --best accuracy --where 'params <= 0.3' --format safetensors,onnx"


def add_arguments(parser: Parser) -> None:
    """The sweep, which of its networks, and what is written where."""
    parser.usage = "sweep export NAME (--trial KEY | --best METRIC [--where C] | --max-drop D | --front) [options]"
    add = parser.add_argument
    parser.sweep()
    add("--trial", metavar="KEY", help="the trial with this key, or its first digits")
    add("--best", metavar="METRIC", help="the best trial in this metric, e.g. accuracy, latency")
    add("--where", metavar="C", help="of those that meet a condition, e.g. 'params <= 0.3 and criterion == obs'")
    add("--max-drop", type=float, metavar="D", help="the smallest network that loses at most D points of accuracy")
    add("--by", metavar="SIZE", help="what smallest means: params, macs, bytes, latency (params)")
    add("--front", action="store_true", help="every network on the front, a folder each")
    add("--format", default="safetensors", metavar="LIST", help="of safetensors, pt2, onnx (safetensors)")
    add("--out", type=Path, metavar="DIR", help="folder for the files (the sweep's own export/KEY)")
    add("--register", metavar="MODEL", help="make it a version of this model in MLflow's registry")
    add("--alias", metavar="A", help="and give the version this alias, e.g. champion")
    add("--tracking-uri", metavar="URI", help="of the MLflow server or database to register it in (the sweep's own)")
    add("--force", action="store_true", help="replace a folder that is there")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Choose, rebuild, compare, write, register, and say where."""
    formats = listed(options.format, "--format", FORMS)
    require_registrable(options, formats)
    from sweep.storage.reader import read_sweep

    sweep = read_sweep(options.results, options.name, whole=True)
    records = chosen_records(options, sweep)
    folders = [folder_for(options, sweep, record.key) for record in records]
    uri = registry_of(options, sweep, len(records)) if options.register else ""
    from sweep.export.rebuild import Rebuilder
    from sweep.export.write import require_free, write_folder
    from sweep.reporting.progress import make_reporter

    for folder in folders:
        require_free(folder, force=options.force)
    written: list[Written] = []
    failed: dict[str, NeuronMergingError] = {}
    with make_reporter(sys.stderr) as reporter:
        rebuilder = Rebuilder(options.results, sweep, reporter)
        rebuilder.bench  # noqa: B018  what is wrong with it is wrong with every network, and said once
        for number, (record, folder) in enumerate(zip(records, folders, strict=True), 1):
            reporter.line(f"{number}/{len(records)}: trial {record.key} is rebuilt and measured")
            try:
                written.append(write_folder(rebuilder.rebuild(record), rebuilder, folder, formats))
            except NeuronMergingError as error:
                failed[record.key] = error
        versions = register(uri, options, rebuilder, written) if uri and written else {}
    if options.json:
        print(json.dumps([{**as_json(one), **registered(one, versions)} for one in written], indent=2))
    elif written:
        print("\n".join(map(lines, written)))
        for version in versions.values():
            also = f", models:/{options.register}@{options.alias}" if options.alias else ""
            print(f"registered as models:/{options.register}/{version}{also}")
    return end(failed, len(records)) or int(any(one.problems for one in written))


def require_registrable(options: Namespace, formats: Sequence[str]) -> None:
    """Look whether what is asked for can be registered.

    Raises:
        UsageError: it cannot.
    """
    if options.alias and not options.register:
        raise UsageError("--alias names a version of a registered model; give --register MODEL too")
    if options.alias and not ALIAS.fullmatch(options.alias):
        raise UsageError(f"--alias {options.alias!r}: letters, digits, - and _ make an alias, such as champion")
    if options.tracking_uri and not options.register:
        raise UsageError("--tracking-uri says where --register MODEL registers; give that too")
    if options.register and "safetensors" not in formats:
        raise UsageError("--register needs safetensors among the --format")


def registry_of(options: Namespace, sweep: StoredSweep, networks: int) -> str:
    """The MLflow store that so many networks are registered in.

    Raises:
        UsageError: it is none, or its password was not kept, or several networks are to have one alias.
        TrackingError: no server answers.
    """
    if options.alias and networks > 1:
        raise UsageError(f"--alias names one version, and {networks} networks are chosen; choose one, e.g. by --trial")
    from sweep.tracking.uri import check_tracking, uri_of

    uri = str(options.tracking_uri or uri_of(sweep.info.request.tracking_uri, options.results))
    check_tracking(uri)
    return uri


def register(uri: str, options: Namespace, rebuilder: Rebuilder, written: Sequence[Written]) -> dict[str, str]:
    """Make the networks versions of a registered model, in their order; key -> version.

    Raises:
        NeuronMergingError: MLflow does not have the sweep, or refuses the name or the alias.
    """
    from sweep.export.models import model_log
    from sweep.export.write import CARD
    from sweep.tracking.summary import Network

    log = model_log(uri, rebuilder)
    there = log.there()
    found: dict[str, str] = {}
    for one in written:
        record = one.rebuilt.record
        files = (one.folder / "model.safetensors", one.folder / CARD)
        model = there.get(record.key) or log.log(Network(record, files))
        found[record.key] = log.register(model, options.register, options.alias or "")
    return found


def registered(one: Written, versions: Mapping[str, str]) -> dict[str, str]:
    """What of a registered network is told to programs."""
    version = versions.get(one.rebuilt.record.key)
    return {} if version is None else {"version": version}


def end(failed: dict[str, NeuronMergingError], wanted: int) -> int:
    """Say which networks could not be written, if any; 0 if all could.

    Raises:
        NeuronMergingError: the only one that was wanted could not.
    """
    if wanted == 1:
        for error in failed.values():
            raise error
    for error in failed.values():
        print(f"sweep: {masked(str(error))}", file=sys.stderr)
    return int(bool(failed))


def chosen_records(options: Namespace, sweep: StoredSweep) -> Sequence[TrialRecord]:
    """The trials that are meant.

    Raises:
        UsageError: none or several of the ways to say so are given, or no trial meets it.
    """
    from sweep.export import choose

    best = options.best or ("" if options.where is not None else None)
    ways = [options.trial is not None, best is not None, options.max_drop is not None, options.front]
    if sum(ways) != 1:
        raise UsageError("say which networks: one of --trial KEY, --best METRIC [--where C], --max-drop D, --front")
    if options.by is not None and options.max_drop is None:
        raise UsageError("--by says what smallest means for --max-drop; leave it out, or give --max-drop")
    if options.trial is not None:
        return [choose.by_key(sweep, options.trial)]
    if options.max_drop is not None:
        return [choose.within(sweep, options.max_drop, options.by or "params")]
    if best is not None:
        return [choose.best(sweep, best, options.where or "")]
    found = choose.front(sweep)
    if not found:
        raise UsageError(
            f"sweep {sweep.info.name} has no finished trial yet; '{choose.status_of(sweep)}' shows how far"
        )
    return found


def folder_for(options: Namespace, sweep: StoredSweep, key: str) -> Path:
    """Where a network goes; those of a front each into a folder of their own, however few they are."""
    if options.out is None:
        return sweep.folder / EXPORT / key
    out: Path = options.out
    return out / key if options.front else out


def lines(one: Written) -> str:
    """What was written, for people."""
    from sweep.export.choose import described

    problems = [f"no {form}: {reason}" for form, reason in one.problems.items()]
    return "\n".join(
        [described(one.rebuilt.record, one.rebuilt.scored), *(f"  {path}" for path in one.files), *problems]
    )


def as_json(one: Written) -> dict[str, object]:
    """What was written, for programs."""
    record = one.rebuilt.record
    files = [str(path) for path in one.files]
    return {"key": record.key, "metrics": record.metrics, "files": files, "problems": one.problems}
