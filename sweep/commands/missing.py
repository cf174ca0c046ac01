"""What would keep a sweep from starting on this machine: looked for by ``sweep show``, without any large library.

Nothing outside this machine is asked unless its address is given, and no code of the user's is run.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import NeuronMergingError, UsageError
from core.parts import HUGGINGFACE, IMAGE_FOLDER, OPTIONAL, is_own_code
from core.plugins import OURS
from sweep.arguments import chosen_cluster

if TYPE_CHECKING:
    from core.config import BaselineConfig
    from search_spaces import SearchSpace


def missing(space: SearchSpace, options: Namespace) -> list[str]:
    """Say what a sweep of this space with these options lacks, a sentence each.

    Raises:
        UsageError: an option has a value that is never right.
    """
    own = {"model": space.baseline.model, "dataset": space.baseline.dataset, "evaluator": space.scored.own}
    found = [*_of_the_network(space.baseline), *_of_own_code(own), *_of_the_results(options.results)]
    if (options.address, options.workers, options.gpus_per_trial) != (None, None, None):
        from sweep.backend.cluster import check_request
        from sweep.storage.info import ClusterRequest

        try:
            check_request(chosen_cluster(options, ClusterRequest()))
        except UsageError:
            raise
        except NeuronMergingError as error:
            found.append(str(error))
    if options.tracking_uri is not None:
        from sweep.tracking.uri import check_tracking

        try:
            check_tracking(options.tracking_uri)
        except UsageError:
            raise
        except NeuronMergingError as error:
            found.append(str(error))
    return found


def _of_the_network(config: BaselineConfig) -> Iterator[str]:
    checkpoint = config.checkpoint and config.checkpoint.expanduser()
    if checkpoint and not checkpoint.is_file():
        yield f"checkpoint {checkpoint}: there is no such file; bring it, or set baseline.checkpoint to where it is"
    if config.dataset.startswith(IMAGE_FOLDER):
        folder = Path(config.dataset.removeprefix(IMAGE_FOLDER)).expanduser()
        if not folder.is_dir():
            yield f"dataset {config.dataset!r}: there is no such folder; bring it, or set baseline.dataset"
    for prefix, package in OPTIONAL.items():
        if config.model.startswith(prefix) and not _is_there(package):
            extra = prefix.rstrip(":")
            install = f"pip install 'neuron-merging-sweep[{extra}]'"
            yield f"model {config.model!r}: the package {package!r} is not installed: {install}"
    if config.model.startswith(HUGGINGFACE):
        yield from _of_the_folder(config.model)


def _of_own_code(named: Mapping[str, str]) -> Iterator[str]:
    for kind, name in named.items():
        top = name.partition(":")[0].partition(".")[0]
        if is_own_code(name) and not _is_there(top):
            yield f"{kind} {name!r}: there is no module {top!r} here; install it, or go to its folder"


def _of_the_folder(model: str) -> Iterator[str]:
    from core.snapshots import folder_of, weights_of

    try:
        weights_of(folder_of(model))
    except NeuronMergingError as error:
        yield str(error)


def _is_there(package: str) -> bool:
    """Whether a package or module can be found where a sweep would look for it; it is not imported."""
    return package in OURS or PathFinder.find_spec(package, [str(Path.cwd()), *sys.path]) is not None


def _of_the_results(results: Path) -> Iterator[str]:
    folder = next(place for place in (results.absolute(), *results.absolute().parents) if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield f"{results}: cannot be written; check its permissions, or give another folder with --results"
