"""A sweep, new or resumed: its store is opened, a session runs in it, and it is left in order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UsageError
from search_spaces import SearchSpace, parse_space
from sweep.backend.cluster import ClusterRequest, check_request
from sweep.backend.stopping import Stopped
from sweep.errors import first_line
from sweep.reporting.progress import Reporter
from sweep.search.racing import check_race
from sweep.search.warmstart import WarmStart
from sweep.session import Finished, Session
from sweep.storage.info import Limits, SweepInfo
from sweep.storage.writer import Store, create_store, open_store, remove_empty
from sweep.tracking import check_tracking, default_uri, redact
from sweep.tracking.uri import SERVERS, uri_of


@dataclass(frozen=True)
class RunRequest:
    """Everything that ``sweep run`` was asked for.

    Args:
        space: what varies, with its search; overrides are in it.
        results: folder of all sweeps.
        name: of the sweep; None: after the space.
        seed: of the search's random draws.
        cluster: workers and where they run.
        tracking_uri: of MLflow; None: the embedded store.
        race: stop a trial as soon as it is certain to be beaten.
        limits: what ends the sweep or a trial early.
        warm_start: earlier sweeps to learn from.
    """

    space: SearchSpace
    results: Path
    name: str | None = None
    seed: int = 0
    cluster: ClusterRequest = field(default_factory=ClusterRequest)
    tracking_uri: str | None = None
    race: bool = False
    limits: Limits = field(default_factory=Limits)
    warm_start: Sequence[str] = ()


@dataclass(frozen=True)
class ResumeRequest:
    """Everything that ``sweep resume`` was asked for; None: as before.

    Args:
        results: folder of all sweeps.
        name: of the sweep.
        cluster: workers and where they run.
        tracking_uri: of MLflow.
        limits: what ends the sweep or a trial early.
        samples: how many configurations the whole sweep tries.
    """

    results: Path
    name: str
    cluster: ClusterRequest | None = None
    tracking_uri: str | None = None
    limits: Limits | None = None
    samples: int | None = None


def run_sweep(request: RunRequest, reporter: Reporter) -> Finished:
    """Run a sweep to its end, or to a stop that was asked for, and return what came of it.

    Raises:
        NeuronMergingError: it cannot start, or nothing can be stored.
    """
    check_request(request.cluster)
    if not 0 <= request.seed < 2**32:
        raise UsageError(f"--seed {request.seed}: give a whole number from 0 to {2**32 - 1}")
    if request.race:
        check_race(request.space.search)
    uri = request.tracking_uri or default_uri(request.results)
    if request.tracking_uri:
        check_tracking(uri)
    warm = WarmStart.read(request.space, request.results, request.warm_start)
    store = create_store(request.results, request.name, lambda name: first_info(request, name, uri), request.space.name)
    with closing(store):
        return Session(store, request.space, uri, reporter).run(warm)


def resume_sweep(request: ResumeRequest, reporter: Reporter) -> Finished:
    """Go on with a sweep that ended early, wherever it was.

    Raises:
        NeuronMergingError: there is no such sweep, it is running, or it cannot start.
    """
    store = open_store(request.results, request.name)
    with closing(store):
        info = store.info
        changes = {"cluster": request.cluster, "limits": request.limits}
        document = resampled(info, request.samples)
        space = parse_space(document, info.name)
        uri = request.tracking_uri or uri_of(info.tracking_uri, request.results)
        store.update(
            **{name: value for name, value in changes.items() if value is not None},
            resolved=document,
            samples=space.search.samples,
            tracking_uri=redact(uri),
        )
        check_request(store.info.cluster)
        if uri.startswith(SERVERS):
            check_tracking(uri)
        return Session(store, space, uri, reporter).run()


@contextlib.contextmanager
def closing(store: Store) -> Iterator[None]:
    """Leave the store in order, whatever happens; one without any trial is taken away."""
    try:
        yield
    except BaseException as error:
        if not remove_empty(store) and store.info.status == "running":
            broken_off = isinstance(error, KeyboardInterrupt | Stopped)
            store.update(
                status="interrupted" if broken_off else "failed", message=first_line(error), ended_at=time.time()
            )
        raise
    finally:
        store.close()


def resampled(info: SweepInfo, samples: int | None) -> dict[str, object]:
    """The resolved space of a sweep, with another number of configurations."""
    if samples is None:
        return info.resolved
    search = info.resolved.get("search", {})
    return {**info.resolved, "search": {**search, "samples": samples} if isinstance(search, dict) else search}


def first_info(request: RunRequest, name: str, uri: str) -> SweepInfo:
    """What is known of a sweep before it starts."""
    search = request.space.search
    return SweepInfo(
        name=name,
        space=request.space.name,
        resolved=request.space.document,
        search=search.algorithm,
        samples=search.samples,
        seed=request.seed,
        total=request.space.planned(),
        race=request.race,
        limits=request.limits,
        cluster=request.cluster,
        started_at=time.time(),
        tracking_uri=redact(uri),
    )
