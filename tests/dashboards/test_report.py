"""A sweep's report: what is in it, that nothing in it is markup or is fetched, and that it works in a browser."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plot_records import ORIGINAL, failed, finished, stopped

from core.errors import UsageError
from core.pareto import hypervolume, pareto_front
from core.records import TrialRecord
from dashboards.report import Source, write_page
from dashboards.report.document import make_document
from dashboards.report.page import as_data, make_page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
ATTACK = "</script><img src=x onerror=alert(1)>"


def records(count: int, seed: int = 0) -> list[TrialRecord]:
    rng, found = random.Random(seed), list[TrialRecord]()
    methods, criteria = ("none", "most-similar", "least-squares"), ("l1", "obs")
    for number in range(count):
        ratio = round(rng.uniform(0.1, 0.95), 3)
        accuracy = 90 - 60 * ratio**3 * rng.random()
        how = {"decomposition": rng.choice(methods), "criterion": rng.choice(criteria)}
        found.append(finished(accuracy, 1 - ratio + 0.01, ratio=ratio, seed=number, **how))
    return found


def source(found: list[TrialRecord], name: str = "toy", **more: Any) -> Source:
    return Source(name, found, ORIGINAL, export=f"sweep export {name}", **more)


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_page_holds_the_fronts_that_the_records_have() -> None:
    found = records(60)
    document = data_of(make_page([source(found)]))
    keys = document["trials"]["keys"]
    whole = next(front for front in document["fronts"]["params_fraction"] if front["group"] == -1)
    assert {keys[place] for place in whole["places"]} == {record.key for record in pareto_front(found)}
    assert whole["hypervolume"] == pytest.approx(hypervolume(found), abs=1e-3)


@pytest.mark.parametrize("drop", [0.5, 1, 2, 5])
def test_the_first_table_names_the_smallest_network_within_a_drop(drop: float) -> None:
    found = records(80, seed=3)
    document = data_of(make_page([source(found)]))
    (answers,) = document["answers"]["params_fraction"]
    (answer,) = [one for one in answers if one["drop"] == drop]
    within = [record for record in found if record.metrics["accuracy_drop"] <= drop]
    smallest = min(within, key=lambda record: record.metrics["params_fraction"], default=None)
    place = answer["place"]
    assert (None if place is None else document["trials"]["keys"][place]) == (smallest.key if smallest else None)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_comes_back_and_ends_no_block(name: str, reason: str) -> None:
    page = make_page([source(records(3), name=name, failures={reason: 2})])
    assert page.count("</script>") == 2
    data_of(page)
    assert json.loads(as_data({"text": name})) == {"text": name.encode("utf-8", "replace").decode()}


def test_names_and_reasons_are_never_markup() -> None:
    page = make_page([source(records(3), name=ATTACK, failures={ATTACK: 1}, remarks=(ATTACK,))])
    assert "<img" not in page
    assert data_of(page)["title"] == ATTACK


def test_nothing_is_fetched() -> None:
    page = make_page([source(records(20))])
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {"http://www.w3.org/2000/svg"}  # a name, no address
    assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=\"(?!data:)", page)


def test_thousands_of_trials_fit_into_five_megabytes() -> None:
    assert len(make_page([source(records(5000))]).encode()) < 5_000_000


def test_sweeps_without_a_front_and_parts_that_are_gone_have_a_page() -> None:
    assert data_of(make_page([source([])]))["subtitle"] == "0 trials, no front"
    assert (
        "2 trials, 1 failed, 1 stopped early"
        in data_of(make_page([source([failed(), stopped(0.5, seed=1)])]))["subtitle"]
    )
    gone = records(1)[0].model_copy(update={"config": {"decomposition": "of-old", "criterion": "l9", "ratio": 0.5}})
    assert len(data_of(make_page([source([gone])]))["trials"]["keys"]) == 1


def test_several_sweeps_are_compared_by_their_fronts_alone() -> None:
    document = make_document([source(records(20)), source(records(30, seed=9), name="other")])
    assert document["compared"]
    assert [group["name"] for group in document["groups"]] == ["toy", "other"]
    assert document["by_ratio"]["curves"] == []


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        write_page([source(records(3))], tmp_path / "file" / "report.html")


@pytest.mark.skipif(not BROWSER, reason="Chromium is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser_an_address_opens_a_trial_with_its_command(tmp_path: Path, dark: bool) -> None:
    found = records(200)
    sites = [{"name": "conv1", "size": 64, "kept": list(range(17))}]
    chosen = pareto_front(found, "macs_fraction")[0]
    found = [r.model_copy(update={"sites": sites}) if r is chosen else r for r in found]
    path = write_page([source(found, failures={ATTACK: 1})], tmp_path / "report.html")
    words = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    words += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'chromium'}", "--dump-dom"]
    words += ["--blink-settings=preferredColorScheme=0"] * dark
    done = subprocess.run(
        [*words, f"{path.as_uri()}#trial={chosen.key}&x=macs"], capture_output=True, text=True, timeout=120
    )
    body = done.stdout.partition('<div id="page">')[2].partition('<script type="application/json"')[0]
    text = re.sub(r"<[^>]+>", "", body)
    assert f"sweep export toy --trial {chosen.key}" in text
    assert "17 / 64" in text
    assert "multiply-accumulates (MACs) left" in text
    assert "<img" not in body
    assert "CONSOLE" not in done.stderr
