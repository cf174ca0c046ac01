"""The networks on a sweep's front, as files beside its records, made when it ends."""

from __future__ import annotations

from pathlib import Path

from core.errors import NeuronMergingError
from core.export import save
from core.files import writing
from sweep.errors import first_line
from sweep.export.card import card_of, metadata_of
from sweep.export.choose import front
from sweep.export.rebuild import Rebuilder
from sweep.reporting.progress import Reporter
from sweep.storage.layout import MODELS
from sweep.storage.reader import StoredSweep

MOST_SECONDS = 600.0
"""What would take longer on one thread is left to ``sweep export``."""


def make_models(results: Path, sweep: StoredSweep, seconds: float, reporter: Reporter) -> None:
    """Write the networks on the front that are not there yet, and remove those that have left it.

    What goes wrong is said in a line, and costs no more than the file.

    Args:
        results: folder of all sweeps.
        sweep: with whole records.
        seconds: that evaluating one network takes about.
        reporter: hears of it.
    """
    folder, name = sweep.folder / MODELS, sweep.info.name
    wanted = {record.key: record for record in front(sweep)}
    there = {path.stem for path in folder.glob("*.safetensors")}
    new = [key for key in wanted if key not in there]
    for path in folder.glob("*"):
        if path.suffix in (".safetensors", ".md") and path.stem not in wanted:
            path.unlink(missing_ok=True)
    if not new:
        return
    if len(new) * seconds > MOST_SECONDS:
        reporter.line(
            f"the {len(new)} networks on the front are not written now, since that takes long: sweep export {name}"
        )
        return
    rebuilder, written = Rebuilder(results, sweep, reporter), 0
    for number, key in enumerate(new, 1):
        reporter.step(number, len(new), f"network {key}")
        try:
            rebuilt = rebuilder.rebuild(wanted[key])
            save(rebuilt.made.model, folder / f"{key}.safetensors", dict(metadata_of(rebuilt, sweep)))
            with writing(folder / f"{key}.md") as path:
                path.write_text(card_of(rebuilt, sweep, rebuilder.space), encoding="utf-8")
            written += 1
        except NeuronMergingError as error:
            reporter.line(f"network {key} is not written: {first_line(error)}")
    reporter.line(f"{written} networks of the front are in {folder}")
