"""The pictures themselves: measured labels and legends, and pages that need nothing from outside."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from plot_records import ORIGINAL, finished, sweep

from core.errors import DiskFullError, UnknownNameError, UsageError
from core.records import TrialRecord
from dashboards import (
    PLOTS,
    draw_pareto_html,
    draw_pareto_png,
    draw_pareto_svg,
    get_pareto_info,
    save_fronts,
    save_plot,
)
from dashboards.labels import extent, place_labels
from dashboards.noise import latency_noise
from dashboards.plots.fronts import draw_fronts
from dashboards.plots.pareto import whiskers
from dashboards.style import DARK, drawn_in

SVG = "{http://www.w3.org/2000/svg}"
TITLE = "lenet-fashion-mnist: lenet-300-100 on fashion-mnist"
PNG, SIDE = b"\x89PNG\r\n", (1440, 840)


def drawn(name: str, records: Sequence[TrialRecord], **options: Any) -> tuple[Any, Figure, Any]:
    plot = PLOTS.get(name)
    info = plot.get_info(records, ORIGINAL, title=TITLE, **options)
    figure = plot.draw(info)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return info, figure, canvas.get_renderer()


def noisy(records: Sequence[TrialRecord], spread: float = 0.06) -> list[TrialRecord]:
    """The same records with latencies that chance has moved."""
    rng, name = random.Random(1), "latency_fraction"
    moved = ({**r.metrics, name: r.metrics[name] * rng.gauss(1, spread)} for r in records)
    return [r.model_copy(update={"metrics": metrics}) for r, metrics in zip(records, moved, strict=True)]


def labels_of(figure: Figure, renderer: Any) -> list[Bbox]:
    return [extent(t, renderer) for t in figure.axes[0].texts if isinstance(t, Annotation)]


@pytest.mark.parametrize("x", ["params", "latency"])
def test_labels_cover_neither_each_other_nor_the_front(case: Sequence[TrialRecord], x: str) -> None:
    info, figure, renderer = drawn("pareto", case, x=x)
    axes = figure.axes[0]
    boxes = labels_of(figure, renderer)
    assert boxes, "the original is always labelled"
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    frame = axes.get_window_extent(renderer)
    marks = axes.transData.transform([(100 * p.x, p.y) for p in info.front] + [(100, info.original_accuracy)])
    for box in boxes:
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
        assert not box.count_contains(marks)


def test_a_hundred_trials_get_most_of_their_labels() -> None:
    info, figure, renderer = drawn("pareto", sweep(100))
    assert len(info.labelled) >= 3
    assert len(labels_of(figure, renderer)) == len(info.labelled) + 1


def test_labels_go_where_nothing_is_blocked_and_are_left_out_where_everything_is() -> None:
    def place(blocked: list[tuple[float, float]]) -> list[Annotation]:
        axes = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
        axes.set(xlim=(-1, 1), ylim=(-1, 1))
        return place_labels(axes, [(0.0, 0.0)], ["a label"], blocked, [])

    grid = [(x / 40, y / 40) for x in range(-40, 41) for y in range(-40, 41)]
    assert place([]), "an empty place has room"
    (label,) = place([(x, y) for x, y in grid if x < 0.05 or y > -0.05])
    assert label.xyann[0] > 0 > label.xyann[1], "only down and to the right is free"
    assert place(grid) == []


@pytest.mark.parametrize("x", ["params", "latency"])
def test_labels_cover_no_trial(x: str) -> None:
    """Also where trials crowd: a label that fits nowhere is left out."""
    info, figure, renderer = drawn("pareto", noisy(sweep(400)), x=x)
    boxes = labels_of(figure, renderer)
    assert len(boxes) >= 4
    trials = figure.axes[0].transData.transform([info.place(p.x, p.y) for p in info.points])
    assert sum(box.count_contains(trials) for box in boxes) == 0


def test_labels_cover_no_mark() -> None:
    axes = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, 1), ylim=(-1, 1))
    above = [(x / 40, y / 40) for x in range(-40, 41) for y in range(1, 41)]
    (label,) = place_labels(axes, [(0.0, 0.0)], ["a label"], [], above)
    assert label.xyann[1] < 0


@pytest.mark.parametrize("name", PLOTS.names())
def test_legends_and_headings_stay_outside_the_axes_and_inside_the_page(name: str, case: Sequence[TrialRecord]) -> None:
    _, figure, renderer = drawn(name, case)
    frame, side = figure.axes[0].get_window_extent(renderer), figure.bbox
    legends = [child for child in figure.axes[0].get_children() if isinstance(child, Legend)]
    boxes = [legend.get_window_extent(renderer) for legend in legends]
    assert boxes
    assert all(box.x0 > frame.x1 for box in boxes)
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    headings = [text.get_window_extent(renderer) for text in figure.texts]
    assert all(box.y0 > frame.y1 for box in headings)
    axis_labels = [figure.axes[0].xaxis.label, figure.axes[0].yaxis.label]
    for box in [*boxes, *headings, *(label.get_window_extent(renderer) for label in axis_labels)]:
        assert side.x0 <= box.x0
        assert box.x1 <= side.x1
        assert side.y0 <= box.y0
        assert box.y1 <= side.y1


def test_every_trial_is_drawn_once_and_the_front_again_on_top() -> None:
    info, figure, _ = drawn("pareto", sweep(100))
    clouds = figure.axes[0].collections
    offsets = [np.asarray(cloud.get_offsets()) for cloud in clouds]
    faint = sum(len(o) for o, cloud in zip(offsets, clouds, strict=True) if cloud.get_alpha())
    strong = sum(len(o) for o, cloud in zip(offsets, clouds, strict=True) if not cloud.get_alpha())
    assert (faint, strong) == (100, len(info.front))
    low, high = figure.axes[0].get_ylim()
    assert all(point.y < high for point in info.points)
    assert all(low < point.y for point in info.front if point.y > info.original_accuracy - 20)


@pytest.mark.parametrize("name", PLOTS.names())
def test_png_and_svg(name: str, case: Sequence[TrialRecord], tmp_path: Path) -> None:
    plot = PLOTS.get(name)
    info = plot.get_info(case, ORIGINAL, title="100 $ & <b>bold</b>")
    png = save_plot(plot, info, tmp_path / "new" / "plot.png")
    assert png.read_bytes().startswith(PNG)
    assert matplotlib.image.imread(png).shape[:2] == SIDE[::-1]
    svg = save_plot(plot, info, tmp_path / "plot.svg").read_text()
    assert "<svg" in svg
    assert "<dc:date>" not in svg


def test_texts_of_an_svg_are_texts_and_the_same_every_time(tmp_path: Path) -> None:
    info = get_pareto_info(sweep(60), ORIGINAL, title="100 $ & <b>bold</b>")
    one, other = (draw_pareto_svg(info, tmp_path / name).read_text() for name in ("one.svg", "other.svg"))
    assert one == other
    texts = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(one).iter(f"{SVG}text")]
    assert {"100 $ & <b>bold</b>", info.subtitle, info.x_label, "original 89.80 %"} <= set(texts)
    assert {text for _, text in info.labelled} <= set(texts), "labels too"


def test_latency_says_how_noisy_it_is_and_where_that_matters() -> None:
    records = noisy(sweep(400))
    info, figure, _ = drawn("pareto", records, x="latency")
    assert info.noise == pytest.approx(0.06, rel=0.1)
    assert figure.axes[0].get_xlabel() == (
        f"latency of one image left (% of the original); equal networks differ by ±{100 * info.noise:.2g} %"
    )
    (x_left, x_right), (y, _) = np.array(next(iter(whiskers(info)))).T
    (x, at) = info.place(info.front[0].x, info.front[0].y)
    assert (x_left, x_right, y) == pytest.approx((x * (1 - info.noise), x * (1 + info.noise), at))
    drawn_lines = [np.array(line.get_xydata()).tolist() for line in figure.axes[0].lines]
    assert [list(place) for place in whiskers(info)[0]] in drawn_lines
    unknown = get_pareto_info([finished(80.0, 0.5)], ORIGINAL, x="latency")
    assert unknown.x_label.endswith("; measured once each, so chance is not known")
    assert whiskers(unknown) == whiskers(get_pareto_info(records, ORIGINAL)) == []


def test_a_latency_that_was_measured_alone_is_the_one_that_is_compared() -> None:
    records = noisy(sweep(20))
    alone = {"idle_latency_fraction": 0.4, "idle_latency_spread": 0.01349}
    records[3] = records[3].model_copy(update={"metrics": {**records[3].metrics, **alone}})
    info = get_pareto_info(records, ORIGINAL, x="latency")
    assert [point.key for point in info.points] == [records[3].key]
    assert "19 not measured alone" in info.subtitle
    assert info.x_label == "idle latency of one image left (% of the original); ±1 %"
    assert len(get_pareto_info(records, ORIGINAL, x="latency_fraction").points) == 20


def test_latency_noise_is_that_of_networks_of_equal_size() -> None:
    def at(latency: float, size: float, seed: int) -> TrialRecord:
        record = finished(80.0, size, seed=seed)
        return record.model_copy(update={"metrics": {**record.metrics, "latency_fraction": latency}})

    records = [at(0.9, 0.5, 0), at(1.1, 0.5, 1), at(5.0, 0.3, 2), at(2.0, 0.2, 3), at(2.0, 0.2, 4)]
    points = get_pareto_info(records, ORIGINAL, x="latency").points
    assert latency_noise(points) == pytest.approx(math.sqrt((0.1**2 + 0.1**2) / 2))
    assert math.isnan(latency_noise(points[2:3]))


def test_fronts_have_short_names_labels_and_a_count_of_what_is_below() -> None:
    names = ("a-sweep-with-a-very-long-name-of-its-own", "b" * 100, "c")
    infos = [get_pareto_info(sweep(120, seed), ORIGINAL, title=name) for seed, name in enumerate(names)]
    figure = draw_fronts(infos)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, axes = canvas.get_renderer(), figure.axes[0]
    legend = next(child for child in axes.get_children() if isinstance(child, Legend))
    box = legend.get_window_extent(renderer)
    assert box.x1 <= figure.bbox.x1
    assert f"{infos[0].hypervolume:.2f}" in legend.get_texts()[0].get_text()
    low = axes.get_ylim()[0]
    below = sum(point.y < low for info in infos for point in info.points)
    assert below
    count = next(text for text in axes.texts if text.get_text() == f"{below} of 360 trials are below")
    extents = count.get_window_extent(renderer), axes.xaxis.label.get_window_extent(renderer)
    assert not extents[0].overlaps(extents[1])
    assert extents[0].y0 >= 0
    boxes = labels_of(figure, renderer)
    assert len(boxes) >= 3
    trials = axes.transData.transform([info.place(p.x, p.y) for info in infos for p in info.points])
    assert sum(box.count_contains(trials) for box in boxes) == 0


@pytest.mark.parametrize("count", [1, 12])
def test_fronts_of_many_sweeps_and_of_none_stay_on_the_page(count: int) -> None:
    infos = [get_pareto_info(sweep(5, seed) if seed else [], ORIGINAL, title=f"sweep-{seed}") for seed in range(count)]
    figure = draw_fronts(infos)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legend = next(child for child in figure.axes[0].get_children() if isinstance(child, Legend))
    box = legend.get_window_extent(canvas.get_renderer())
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_drawing_leaves_matplotlibs_global_state_alone() -> None:
    before = dict(mpl.rcParams)
    drawn("pareto", sweep(20))
    assert dict(mpl.rcParams) == before


class Page(HTMLParser):
    """Collects what a page would fetch, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]


def figure_in(text: str) -> list[Any]:
    """The traces that the page hands to plotly."""
    start = text.rindex("Plotly.newPlot(")
    traces, _ = json.JSONDecoder().raw_decode(text[text.index("[", start) :])
    assert isinstance(traces, list)
    return traces


@pytest.mark.parametrize("name", PLOTS.names())
def test_html_is_one_file_that_fetches_nothing(name: str, case: Sequence[TrialRecord], tmp_path: Path) -> None:
    plot = PLOTS.get(name)
    info = plot.get_info(case, ORIGINAL, title="</script><b>x</b>")
    text = save_plot(plot, info, tmp_path / "plot.html").read_text()
    page = Page(text)
    assert page.fetched == []
    assert "b" not in page.tags, "names are text, never markup"
    assert not re.search(r"@import|url\(['\"]?https?:", text)
    assert "<title>&lt;/script&gt;" in text
    assert "plotly.js v" in text


def test_html_hover_shows_every_trial(tmp_path: Path) -> None:
    records = sweep(60)
    info = get_pareto_info(records, ORIGINAL, title=TITLE)
    traces = figure_in(draw_pareto_html(info, tmp_path / "pareto.html").read_text())
    hovers = [text for trace in traces for text in trace.get("hovertext", [])]
    assert len(hovers) == 60
    assert {re.search(r"trial (\w+)$", text)[1] for text in hovers} == {record.key for record in records}  # type: ignore[index]
    assert all("<br>accuracy " in text and "<br>seed = " in text for text in hovers)


def test_html_legend_has_each_decomposition_and_criterion_once(tmp_path: Path) -> None:
    info = get_pareto_info(sweep(60), ORIGINAL)
    traces = figure_in(draw_pareto_html(info, tmp_path / "pareto.html").read_text())
    entries = [(t.get("legend", "legend"), t["name"]) for t in traces if t.get("showlegend", True)]
    assert sorted(name for legend, name in entries if legend == "legend") == sorted(
        {p.decomposition for p in info.points}
    )
    second = [name for legend, name in entries if legend == "legend2"]
    assert second == [*sorted({p.criterion for p in info.points}), "Pareto front", "original network"]


def test_a_users_own_text_is_escaped_in_hovers(tmp_path: Path) -> None:
    record = finished(80.0, 0.5, sites=("<img src=x>",))
    traces = figure_in(draw_pareto_html(get_pareto_info([record], ORIGINAL), tmp_path / "p.html").read_text())
    hovers = "".join(text for trace in traces for text in trace.get("hovertext", []))
    assert "&lt;img src=x&gt;" in hovers
    assert "<img" not in hovers


def test_the_three_pareto_writers(tmp_path: Path) -> None:
    info = get_pareto_info(sweep(10), ORIGINAL)
    assert draw_pareto_png(info, tmp_path / "a.png").read_bytes().startswith(PNG)
    assert "<svg" in draw_pareto_svg(info, tmp_path / "a.svg").read_text()
    assert draw_pareto_svg(info, tmp_path / "b.svg").stat().st_size > 1000


def test_unknown_format(tmp_path: Path) -> None:
    plot = PLOTS.get("pareto")
    with pytest.raises(UnknownNameError, match="unknown picture format 'pmg'; did you mean 'png'"):
        save_plot(plot, plot.get_info([], ORIGINAL), tmp_path / "a.pmg")


def test_a_picture_that_fails_half_way_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def half(self: FigureCanvasAgg, target: Path) -> None:
        target.write_bytes(b"new")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", half)
    with pytest.raises(DiskFullError, match=r"a\.png cannot be written: No space left on device; free some space"):
        draw_pareto_png(get_pareto_info([], ORIGINAL), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.html"])
def test_files_are_replaced_and_not_written_over(name: str, tmp_path: Path) -> None:
    path, same_file = tmp_path / name, tmp_path / "link"
    path.write_text("old")
    same_file.hardlink_to(path)
    plot = PLOTS.get("pareto")
    save_plot(plot, plot.get_info([], ORIGINAL), path)
    assert path.stat().st_size > 1000
    assert same_file.read_text() == "old"


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/a\.png cannot be written: .*; choose another place"):
        draw_pareto_png(get_pareto_info([], ORIGINAL), tmp_path / "file" / "a.png")


def test_the_y_axis_begins_where_people_choose(tmp_path: Path) -> None:
    """What is far below is counted on the border; its own front is all there."""
    good = [finished(90 - 2 * n, 0.9 - 0.1 * n, ratio=0.1 + n / 100) for n in range(6)]
    poor = [finished(12.0 + n, 0.2 + n / 100, ratio=0.6 + n / 100, decomposition="none") for n in range(20)]
    info, figure, _ = drawn("pareto", [*good, *poor])
    low, high = figure.axes[0].get_ylim()
    assert 60 < low < 80 < 90 < high
    assert "20 of 26 trials are below" in [text.get_text() for text in figure.axes[0].texts]
    assert len(info.points) == 26
    few, figure, _ = drawn("pareto", [good[0], poor[0]])
    low, _ = figure.axes[0].get_ylim()
    assert all(low < point.y for point in few.points), "a few trials are all shown"


@pytest.mark.parametrize("name", [*PLOTS.names(), "fronts"])
def test_dark_is_dark_and_readable(name: str, tmp_path: Path) -> None:
    records, theme = sweep(30), DARK
    path = tmp_path / "plot.png"
    with drawn_in(theme):
        if name == "fronts":
            save_fronts([get_pareto_info(records, ORIGINAL, title=t) for t in ("a", "b")], path)
        else:
            save_plot(PLOTS.get(name), PLOTS.get(name).get_info(records, ORIGINAL), path)
        page = save_fronts([get_pareto_info(records, ORIGINAL)], tmp_path / "plot.html").read_text()
    assert f"background: {theme.paper}" in page
    pixels = matplotlib.image.imread(path)[..., :3]
    paper = np.array([int(theme.paper[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert np.mean(np.abs(pixels - paper).max(axis=-1) < 0.02) > 0.7
    assert pixels.max() > 0.85, "something light is on it"
    dark_ink = np.abs(pixels - np.array([0x1A, 0x1A, 0x1A]) / 255).max(axis=-1) < 0.01
    assert dark_ink.mean() < 0.01, "no ink of the light theme is left"


@pytest.mark.parametrize("dpi", [100, 300])
def test_a_png_has_the_dots_that_were_asked_for(dpi: int, tmp_path: Path) -> None:
    plot = PLOTS.get("pareto")
    path = save_plot(plot, plot.get_info(sweep(5), ORIGINAL), tmp_path / "plot.png", dpi)
    assert matplotlib.image.imread(path).shape[:2] == (round(5.6 * dpi), round(9.6 * dpi))


def test_several_fronts_have_a_line_and_a_place_in_the_legend_each(tmp_path: Path) -> None:
    infos = [get_pareto_info(sweep(20, seed), ORIGINAL, title=f"sweep-{seed}") for seed in range(3)]
    figure = draw_fronts(infos)
    (legend,) = [child for child in figure.axes[0].get_children() if isinstance(child, Legend)]
    entries = [text.get_text() for text in legend.get_texts()]
    assert entries[:3] == [f"{info.title}\n{info.hypervolume:.2f}" for info in infos]
    lines = {line.get_color() for line in figure.axes[0].lines if line.get_linestyle() == "-"}
    assert len(lines) == 3
    assert "<svg" in save_fronts(infos, tmp_path / "fronts.svg").read_text()
    with pytest.raises(UnknownNameError, match="picture format"):
        save_fronts(infos, tmp_path / "fronts.pdf")
