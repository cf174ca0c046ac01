"""What plots, tables and files show, read from the data objects."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from plot_records import ORIGINAL, failed, finished, stopped, sweep

from core.config import TrialConfig
from core.errors import UnknownNameError, UsageError
from core.pareto import hypervolume, pareto_front
from dashboards import PLOTS, front_table, get_pareto_info, write_front_csv, write_front_json, write_trials_csv
from dashboards.front import _fitted
from dashboards.palette import COLOURS
from dashboards.pareto_info import step_line
from dashboards.style import colours, markers
from dashboards.textplot import front_picture

ROOT = Path(__file__).parents[2]
RECORDS = [
    finished(88.0, 0.6, ratio=0.4, decomposition="none"),
    finished(89.5, 0.5, ratio=0.5, decomposition="most-similar", options={"threshold": 0.3}),
    finished(80.0, 0.2, ratio=0.8, decomposition="most-similar", options={"threshold": 0.45}),
    finished(86.0, 0.3, ratio=0.7, decomposition="least-squares", criterion="l2"),
    failed(ratio=0.9),
]


def test_points_and_front() -> None:
    info = get_pareto_info(RECORDS, ORIGINAL, title="a sweep")
    assert [p.key for p in info.points] == [r.key for r in RECORDS[:4]]
    assert [(p.x, p.y) for p in info.front] == [(0.2, 80.0), (0.3, 86.0), (0.5, 89.5)]
    assert (info.original_accuracy, info.failed, info.left_out) == (89.8, 1, 0)
    assert info.hypervolume == pytest.approx(0.1 * 80 + 0.2 * 86 + 0.5 * 89.5)
    assert info.subtitle == "5 trials (1 failed), 3 on the front, hypervolume 69.95"
    assert (info.x_label, info.y_label) == ("parameters left (% of the original)", "top-1 accuracy (%)")
    assert info.title == "a sweep"


def test_front_and_hypervolume_are_the_cores() -> None:
    records = sweep(300)
    for x in ("params", "macs", "bytes", "latency"):
        info = get_pareto_info(records, ORIGINAL, x=x)
        assert [p.key for p in info.front] == [r.key for r in pareto_front(records, f"{x}_fraction")]
        assert info.hypervolume == hypervolume(records, f"{x}_fraction")
        assert {p.x for p in info.points} == {r.metrics[f"{x}_fraction"] for r in records}


def test_unknown_size() -> None:
    with pytest.raises(UnknownNameError, match="unknown x axis 'param'; did you mean 'params'"):
        get_pareto_info(RECORDS, ORIGINAL, x="param")


def test_a_record_without_the_size_is_counted_not_hidden() -> None:
    bare = RECORDS[0].model_copy(update={"metrics": {"accuracy": 50.0, "params_fraction": 0.5}})
    info = get_pareto_info([*RECORDS[1:], bare], ORIGINAL, x="latency")
    assert info.left_out == 1
    assert info.subtitle.startswith("5 trials (1 failed, 1 without this size)")


def test_stopped_trials_are_counted_and_never_shown(tmp_path: Path) -> None:
    raced = [stopped(0.1, ratio=0.9), *RECORDS, stopped(0.05, ratio=0.95), stopped(0.2, ratio=0.8)]
    info, without = get_pareto_info(raced, ORIGINAL), get_pareto_info(RECORDS, ORIGINAL)
    assert (info.points, info.front, info.hypervolume) == (without.points, without.front, without.hypervolume)
    assert (info.stopped, info.failed, info.left_out) == (3, 1, 0)
    assert info.subtitle == "8 trials (1 failed, 3 stopped early), 3 on the front, hypervolume 69.95"
    assert front_table(info) == front_table(without)
    assert json.loads(write_front_json(info, tmp_path / "front.json").read_text())["stopped"] == 3
    csv_with, csv_without = (write_front_csv(i, tmp_path / "front.csv").read_text() for i in (info, without))
    assert csv_with == csv_without
    latency = get_pareto_info(raced, ORIGINAL, x="latency")
    assert "3 stopped early, whatever their latency)" in latency.subtitle
    assert latency.left_out == 0


def test_a_bound_is_no_accuracy() -> None:
    """A stopped trial's bound beats everything here, and is on no front."""
    raced = [*RECORDS, stopped(0.01, ratio=0.99)]
    assert pareto_front(raced) == pareto_front(RECORDS)
    assert hypervolume(raced) == hypervolume(RECORDS)
    assert front_table(get_pareto_info([stopped(0.5)], ORIGINAL)) == "1 trial (1 stopped early): no front"


def test_hover_shows_the_full_configuration() -> None:
    info = get_pareto_info(RECORDS, ORIGINAL)
    lines = info.points[1].hover
    assert lines[:2] == ("most-similar, l1, ratio 0.5", "accuracy 89.50 % (-0.30)")
    assert "left: params 50.0 %, macs 45.0 %, bytes 50.0 %, latency 75.0 %" in lines
    assert set(lines) >= {"threshold = 0.3", "lam = 0.85", "bn_scale = exact", "bn_recalibrate = false", "seed = 0"}
    assert lines[-1] == f"trial {RECORDS[1].key}"
    assert any(line == "calibration = train-subset" for line in info.points[3].hover)


def test_settings_name_what_varies_or_is_not_the_default() -> None:
    def settings(*records: TrialConfig) -> list[str]:
        info = get_pareto_info([finished(80.0, 0.5, **r.model_dump(exclude_none=True)) for r in records], ORIGINAL)
        return [p.settings for p in info.points]

    default = TrialConfig(ratio=0.5)
    assert settings(default) == [""]
    assert settings(default, TrialConfig(ratio=0.6, criterion="l2", decomposition="none")) == ["", ""]
    assert settings(TrialConfig(options={"threshold": 0.2})) == ["threshold=0.2"]
    assert settings(default, TrialConfig(options={"threshold": 0.2}, seed=3)) == [
        "threshold=0.1 seed=0",
        "threshold=0.2 seed=3",
    ]
    assert settings(TrialConfig(allocation="per-site", ratios={"ip1": 0.5})) == ["allocation=per-site ratios=ip1=0.5"]


def test_data_are_frozen() -> None:
    info = get_pareto_info(RECORDS, ORIGINAL)
    for thing, field in ((info, "title"), (info.points[0], "x")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, field, "other")


def test_labels_mark_the_smallest_network_within_each_drop() -> None:
    info = get_pareto_info(RECORDS, ORIGINAL)
    assert [text for _, text in info.labelled] == ["89.5 % at 50 %", "86.0 % at 30 %", "80.0 % at 20 %"]
    poor = get_pareto_info([finished(30.0, 0.2), finished(40.0, 0.4, ratio=0.1)], ORIGINAL)
    assert [text for _, text in poor.labelled] == ["40.0 % at 40 %"], "if all are far off, the best"


def test_step_line_goes_right_and_then_up() -> None:
    assert step_line(get_pareto_info(RECORDS, ORIGINAL)) == [(20, 80.0), (30, 80.0), (30, 86.0), (50, 86.0), (50, 89.5)]
    assert step_line(get_pareto_info([], ORIGINAL)) == []


def test_table() -> None:
    lines = front_table(get_pareto_info(RECORDS, ORIGINAL)).splitlines()
    assert lines[0].split("  ")[0].strip() == "rank"
    assert lines[1].replace(" ", "").strip("-") == ""
    first = lines[2].split()
    assert first == ["1", "89.50", "50.0", "45.0", "l1", "most-similar", "0.5", "threshold=0.3", RECORDS[1].key]
    assert [line.split()[1] for line in lines[2:]] == ["89.50", "86.00", "80.00"]
    starts = {line.index(key) for line, key in zip(lines[2:], [RECORDS[i].key for i in (1, 3, 2)], strict=True)}
    assert len(starts) == 1, "columns line up"


def test_table_has_the_size_that_was_compared() -> None:
    header = front_table(get_pareto_info(RECORDS, ORIGINAL, x="latency")).splitlines()[0]
    assert "latency left %" in header
    assert "params left %" in header


@pytest.mark.parametrize("width", [50, 72, 100])
def test_a_front_of_letters(width: int) -> None:
    info = get_pareto_info(RECORDS, ORIGINAL)
    lines = front_picture(info, width, 12)
    assert max(map(len, lines)) <= width
    plot = "".join(lines[1:13])
    assert plot.count("*") == 1
    assert plot.count("o") + plot.count("v") == len(info.front)
    assert front_picture(get_pareto_info([failed(ratio=0.1)], ORIGINAL)) == []


def test_every_trial_as_csv_with_columns_that_stay(tmp_path: Path) -> None:
    """Those of docs/results.md, whatever the trials have; new ones are added there too."""
    infos = {"one": get_pareto_info(RECORDS, ORIGINAL), "two": get_pareto_info(RECORDS[:1], ORIGINAL)}
    path = write_trials_csv(infos, {"one": RECORDS, "two": RECORDS[:1]}, tmp_path / "trials.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(RECORDS) + 1
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "results.md").read_text(), re.MULTILINE)
    assert list(rows[0]) == documented
    assert [row["key"] for row in rows if row["rank"] != "0" and row["sweep"] == "one"] == [
        record.key for record in RECORDS if record.key in {point.key for point in infos["one"].front}
    ]
    best = next(row for row in rows if row["rank"] == "1")
    assert float(best["accuracy"]) == max(p.metrics["accuracy"] for p in infos["one"].points)
    assert json.loads(best["options"])["threshold"] == 0.3


def test_table_without_a_front() -> None:
    assert front_table(get_pareto_info([failed(ratio=0.1)], ORIGINAL)) == "1 trial (1 failed): no front"


def test_csv_and_json(tmp_path: Path) -> None:
    info = get_pareto_info(RECORDS, ORIGINAL)
    with write_front_csv(info, tmp_path / "deep" / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [float(row["accuracy"]) for row in rows] == [89.5, 86.0, 80.0]
    assert json.loads(rows[0]["options"])["threshold"] == 0.3
    assert rows[1]["calibration"] == "train-subset"
    assert rows[0]["calibration"] == rows[0]["sites"] == ""
    document = json.loads(write_front_json(info, tmp_path / "front.json").read_text())
    assert document["x"] == "params_fraction"
    assert document["hypervolume"] == pytest.approx(info.hypervolume)
    configs = [TrialConfig.model_validate(entry["config"]) for entry in document["front"]]
    assert [config.key for config in configs] == [entry["key"] for entry in document["front"]]


def test_csv_of_no_front_has_only_a_header(tmp_path: Path) -> None:
    path = write_front_csv(get_pareto_info([], ORIGINAL), tmp_path / "front.csv")
    assert path.read_text() == "rank,key\n"


def test_accuracy_by_ratio_keeps_the_best_of_each() -> None:
    records = [
        finished(70.0, 0.5, ratio=0.5, decomposition="none"),
        finished(75.0, 0.5, ratio=0.5, decomposition="none", criterion="l2"),
        finished(60.0, 0.3, ratio=0.7, decomposition="none"),
        finished(85.0, 0.5, ratio=0.5, decomposition="nmf"),
        finished(99.0, 0.5, ratio=0.5, decomposition="nmf", allocation="per-site", ratios={"ip1": 0.1}),
        failed(ratio=0.9),
        stopped(0.5, ratio=0.5, decomposition="least-squares"),
    ]
    info = PLOTS.get("accuracy-by-ratio").get_info(records, ORIGINAL, title="t")
    best = {s.decomposition: [(ratio, p.y) for ratio, p in s.best] for s in info.series}
    assert best == {"none": [(0.5, 75.0), (0.7, 60.0)], "nmf": [(0.5, 85.0)]}
    assert info.left_out == 1
    assert "1 stopped early left out, 1 without a single ratio left out" in info.subtitle


def test_many_different_ratios_are_put_into_bins() -> None:
    records = [finished(50 + i / 10, 0.5, ratio=0.3 + i / 1000, decomposition="none") for i in range(100)]
    info = PLOTS.get("accuracy-by-ratio").get_info(records, ORIGINAL)
    assert [ratio for ratio, _ in info.series[0].best] == [0.3, 0.35, 0.4]
    assert info.series[0].best[-1][1].y == 59.9
    assert "bins of 0.05" in info.subtitle


def test_the_table_of_plots_is_complete() -> None:
    assert PLOTS.names() == ["accuracy-by-ratio", "pareto"]


def test_colours_are_the_same_in_every_picture_and_differ_in_lightness() -> None:
    alone, together = colours(["nmf"]), colours(["nmf", "none", "most-similar", "something-new"])
    assert alone["nmf"] == together["nmf"]
    assert next(iter(together)) == "none"
    assert len(set(together.values())) == 4
    grey = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5))) for c in COLOURS]
    assert all(abs(a - b) > 25 for i, a in enumerate(grey[:4]) for b in grey[:i])
    assert len({m.static for m in markers(["l1", "l2", "geometric-median", "new"]).values()}) == 4


def test_unwritable_places_are_said_in_one_sentence(tmp_path: Path) -> None:
    info = get_pareto_info(RECORDS, ORIGINAL)
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UsageError, match=r"file/front\.csv cannot be written: .*; choose another place"):
        write_front_csv(info, blocker / "front.csv")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UsageError, match=r"folder\.json cannot be written"):
        write_front_json(info, tmp_path / "folder.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json"], "no temporary file stays"


def test_a_table_does_without_as_few_columns_as_it_can() -> None:
    table = {"rank": ["1"], "MACs %": ["80.8"], "options": ["x" * 60], "key": ["de675153"]}
    assert list(_fitted(table, 200)) == list(table)
    assert list(_fitted(table, 40)) == ["rank", "MACs %", "key"], "the wide one went, and made room for the narrow one"
    assert list(_fitted(table, 15)) == ["rank", "key"]
