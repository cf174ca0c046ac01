"""A sweep, new or resumed: its store is opened, a session runs in it, and it is left in order."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.errors import UsageError
from core.identity import KEY_VERSION
from search_spaces import SearchSpace, parse_space
from sweep.backend.cluster import check_request
from sweep.backend.stopping import Stopped
from sweep.errors import first_line
from sweep.reporting.finished import Finished
from sweep.reporting.progress import Reporter
from sweep.search.racing import check_race
from sweep.search.warmstart import WarmStart
from sweep.session import Session
from sweep.storage.info import (
    ClusterRequest,
    Limits,
    Status,
    SweepInfo,
    SweepRequest,
    SweepState,
    require_key_version,
    resampled,
)
from sweep.storage.writer import Store, create_store, open_store, remove_empty
from sweep.tracking import check_tracking, default_uri, redact
from sweep.tracking.uri import uri_of

CROWD = 4
"""Workers for each CPU; more are warned of."""


@dataclass(frozen=True)
class RunRequest:
    """Everything that ``sweep run`` was asked for.

    Attributes:
        space: what varies, with its search; overrides are in it.
        results: folder of all sweeps.
        name: of the sweep; None: after the space.
        seed: of the search's random draws.
        cluster: workers and where they run.
        tracking_uri: of MLflow; None: the embedded store.
        race: stop a trial as soon as it is certain to be beaten.
        limits: what ends the sweep or a trial early.
        warm_start: earlier sweeps to learn from.
        models: write the networks on the front when it ends.
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
    models: bool = True


@dataclass(frozen=True)
class ResumeRequest:
    """Everything that ``sweep resume`` was asked for; None: as before.

    Attributes:
        results: folder of all sweeps.
        name: of the sweep.
        cluster: workers and where they run.
        tracking_uri: of MLflow.
        limits: what ends the sweep or a trial early.
        samples: how many configurations the whole sweep tries.
        models: write the networks on the front when it ends.
    """

    results: Path
    name: str
    cluster: ClusterRequest | None = None
    tracking_uri: str | None = None
    limits: Limits | None = None
    samples: int | None = None
    models: bool | None = None


def run_sweep(request: RunRequest, reporter: Reporter) -> Finished:
    """Run a sweep to its end, or to a stop that was asked for, and return what came of it.

    Raises:
        NeuronMergingError: it cannot start, or nothing can be stored.
        UsageError: the seed is out of its range, or another part of the request cannot be had.
    """
    check_request(request.cluster)
    if not 0 <= request.seed < 2**32:
        raise UsageError(f"--seed {request.seed}: give a whole number from 0 to {2**32 - 1}")
    if request.race:
        check_race(request.space)
    uri = request.tracking_uri or default_uri(request.results)
    check_tracking(uri)
    warn(request.cluster, reporter)
    warm = WarmStart.read(request.space, request.results, request.warm_start)
    store = create_store(request.results, request.name, lambda name: first_info(request, name, uri), request.space.name)
    with left_in_order(store):
        return Session(store, request.space, uri, reporter).run(warm)


def resume_sweep(request: ResumeRequest, reporter: Reporter) -> Finished:
    """Go on with a sweep that ended early, wherever it was.

    Raises:
        NeuronMergingError: there is no such sweep, it is running, or it cannot start.
    """
    store = open_store(request.results, request.name)
    with left_in_order(store):
        before = store.info.request
        require_key_version(store.info)
        document = resampled(before, request.samples)
        space = parse_space(document, before.name)
        uri = request.tracking_uri or uri_of(before.tracking_uri, request.results)
        store.save(
            request=replace(
                before,
                cluster=request.cluster or before.cluster,
                limits=request.limits or before.limits,
                resolved=document,
                samples=space.search.samples,
                tracking_uri=redact(uri),
                models=before.models if request.models is None else request.models,
            )
        )
        check_request(store.info.request.cluster)
        check_tracking(uri)
        warn(store.info.request.cluster, reporter)
        return Session(store, space, uri, reporter).run()


def warn(cluster: ClusterRequest, reporter: Reporter) -> None:
    """Say what is allowed and not wise."""
    cpus = os.cpu_count() or 1
    if cluster.address is None and (cluster.workers or 0) > CROWD * cpus:
        reporter.line(
            f"warning: {cluster.workers} workers share {cpus} CPUs and one memory; as many as CPUs are fastest"
        )


@contextlib.contextmanager
def left_in_order(store: Store) -> Iterator[None]:
    """Leave the store in order, whatever happens; one without any trial is taken away."""
    try:
        yield
    except BaseException as error:
        if not remove_empty(store) and store.info.status == "running":
            broken_off = isinstance(error, KeyboardInterrupt | Stopped)
            status: Status = "interrupted" if broken_off else "failed"
            store.save(replace(store.state, status=status, message=first_line(error), ended_at=time.time()))
        raise
    finally:
        store.close()


def first_info(request: RunRequest, name: str, tracking_uri: str) -> SweepInfo:
    """What is known of a new sweep before anything has happened; its address is kept without its password."""
    space = request.space
    asked = SweepRequest(
        name=name,
        space=space.name,
        resolved=space.settled(),
        search=space.search.algorithm,
        samples=space.search.samples,
        seed=request.seed,
        race=request.race,
        limits=request.limits,
        cluster=request.cluster,
        tracking_uri=redact(tracking_uri),
        key_version=KEY_VERSION,
        models=request.models,
    )
    return SweepInfo(asked, SweepState(total=space.planned(), started_at=time.time()))
