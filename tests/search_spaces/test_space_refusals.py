"""Everything that is wrong with a space is refused before anything starts: file, key, nearest known word."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from core.errors import UnknownNameError, UsageError
from search_spaces import list_spaces, load_space, parse_space

HEAD = """
[baseline]
model = "lenet-300-100"
dataset = "digits"
"""
AXES = """
[axes]
ratio = { values = [0.3, 0.5] }
decomposition = { values = ["none", "most-similar", "nmf"] }
"""
GOOD = HEAD + AXES


def axis(text: str) -> str:
    return GOOD + text


REFUSED = [
    # unknown keys, at every level
    ("nam = 'x'\n" + GOOD, "s.toml: nam: unknown key 'nam'; did you mean 'name'"),
    (GOOD.replace("model", "modle"), "s.toml: baseline.modle: unknown key 'modle'; did you mean 'model'"),
    (GOOD + "[search]\nsample = 3", "s.toml: search.sample: unknown key 'sample'; did you mean 'samples'"),
    (axis("threshold = { value = [] }"), "s.toml: axes.threshold.value: unknown key 'value'; did you mean 'values'"),
    (axis("treshold = { values = [0.1] }"), "s.toml: axes.treshold: .*did you mean 'threshold'"),
    (GOOD + "[fixed]\nsede = 1", "s.toml: fixed.sede: .*did you mean 'seed'"),
    # unknown words
    (GOOD.replace("lenet-300-100", "lenet-300"), "s.toml: baseline.model: .*did you mean 'lenet-300-100'"),
    (GOOD.replace("digits", "digit"), "s.toml: baseline.dataset: .*did you mean 'digits'"),
    (
        axis("criterion = { values = ['l1', 'l3'] }"),
        "s.toml: axes.criterion.values: unknown criterion 'l3'; did you mean",
    ),
    (GOOD.replace("nmf", "nmff"), "s.toml: axes.decomposition.values: .*did you mean 'nmf'"),
    (axis("allocation = { values = ['unifrm'] }"), "axes.allocation.values: .*did you mean 'uniform'"),
    (axis("bn_recalibrate = { values = [true] }\ncalibration = { values = ['noize'] }"), "did you mean 'noise'"),
    (axis("bn_scale = { values = ['exat'] }"), "axes.bn_scale.values: unknown bn_scale 'exat'; did you mean 'exact'"),
    (GOOD + "[fixed]\ncriterion = 'l3'", "fixed.criterion: unknown criterion 'l3'; did you mean"),
    (GOOD + "[search]\nalgorithm = 'gird'", "search.algorithm: 'gird' is not known; did you mean 'grid'"),
    (GOOD + "[search]\nobjectives = { acuracy = 'max' }", "objectives.acuracy: .*did you mean 'accuracy'"),
    (GOOD + "[search]\nobjectives = { accuracy = 'up' }", "objectives.accuracy: 'up' is not known; known: max, min"),
    (GOOD + "[search]\nstart = 'budget'", "search.start: a budget says ratios of layers, and axes"),
    (GOOD + "[search]\nstart = 'bugdet'", "search.start: .*'budget'"),
    (axis("target = { values = ['drop < 1'] }"), "axes.target.values: .*write METRIC <= NUMBER"),
    (GOOD + "[fixed]\ntarget = 'drop <= 1'", "axes.ratio: target decides that here; remove one of the two"),
    # impossible conditions
    (
        axis("hard = { values = [true], when = { decompositio = ['nmf'] } }"),
        "when.decompositio: .*mean 'decomposition'",
    ),
    (axis("hard = { values = [true], when = { rows = ['fixed'] } }"), "axes.hard.when.rows: there is no axis 'rows'"),
    (axis("seed = { values = [1], when = { ratio = [0.4] } }"), "axes.seed.when.ratio: that axis never takes 0.4"),
    (axis("threshold = { values = [0.1], when = { decomposition = ['least-squares'] } }"), "has no such option"),
    (axis("damping = { values = [0.1], when = { decomposition = ['least-squares'] } }"), "never takes least-squares"),
    (axis("hard = { values = [true], when = { decomposition = ['nmff'] } }"), "hard.when.decomposition: .*mean 'nmf'"),
    (axis("hard = { values = [true], when = { decomposition = [] } }"), "the list is empty"),
    (axis("hard = { values = [true], when = { decomposition = 'nmf' } }"), "'nmf' is not a list; write \\['nmf'\\]"),
    (axis("hard = { values = [true], when = { hard = [true] } }"), "run in a circle: hard -> hard"),
    (
        axis(
            "hard = { values = [true], when = { rows = ['free'] } }\n"
            "rows = { values = ['free'], when = { hard = [true] } }"
        ),
        "run in a circle: hard -> rows -> hard",
    ),
    (
        axis("rows = { values = ['free'] }\nthreshold = { values = [0.1], when = { rows = ['free'] } }"),
        "axes.threshold.when: can never hold, since axis 'rows' itself needs decomposition = nmf",
    ),
    (
        "[search]\nalgorithm = 'tpe'\n"
        + axis("lam = { low = 0, high = 1 }\nseed = { values = [1], when = { lam = [0.5] } }"),
        "axes.seed.when.lam: that axis is continuous",
    ),
    # values
    (axis("threshold = { values = [] }"), "s.toml: axes.threshold: the axis is empty"),
    (axis("threshold = {}"), "axes.threshold: give either values"),
    (axis("threshold = { values = [0.1], low = 0 }"), "axes.threshold: give either values"),
    (axis("threshold = { values = [0.1], log = true }"), "step and log belong to a range"),
    (axis("threshold = { values = [0.1, 0.1] }"), "axes.threshold.values: 0.1 is listed twice"),
    (axis("threshold = { values = [1, 1.0] }"), "axes.threshold.values: 1.0 is listed twice"),
    (axis("threshold = { values = [2] }"), "axes.threshold.values: 2 should be less than or equal to 1"),
    (GOOD.replace("0.3", "1.5"), "axes.ratio.values: 1.5 should be less than 1"),
    (GOOD.replace("0.3", "-0.1"), "axes.ratio.values: -0.1 should be greater than or equal to 0"),
    (GOOD.replace("0.3", "nan"), "nan is not a finite number"),
    (GOOD + "[fixed]\nthreshold = 3", "fixed.threshold: 3 should be less"),
    (axis("threshold = { low = 0.5, high = 0.1 }"), "axes.threshold: low = 0.5 is above high = 0.1"),
    (axis("threshold = { low = 0.5 }"), "needs both low and high; high is missing"),
    (axis("threshold = { high = 0.5 }"), "needs both low and high; low is missing"),
    (axis("threshold = { low = 0, high = 5, step = 1 }"), "axes.threshold.high: 5 should be less"),
    (axis("threshold = { low = 0, high = 0.5, step = 0 }"), "axes.threshold.step: 0 is not above 0"),
    (axis("threshold = { low = 0.1, high = 0.5, step = 0.1, log = true }"), "step and log exclude each other"),
    (axis("threshold = { low = 0, high = 0.5, log = true }"), "must be above 0 for log = true"),
    (axis("threshold = { low = 0, high = 0.5 }"), "axes.threshold: is continuous, so it has no grid"),
    (axis("criterion = { low = 'l1', high = 'l2' }"), "axes.criterion.low: only numbers have a range"),
    # types
    (axis("threshold = { values = [0.1, 'a'] }"), "axes.threshold.values: 'a' is not a number"),
    (axis("threshold = { values = 0.1 }"), "axes.threshold.values: 0.1 is not a list; write \\[0.1\\]"),
    (axis("threshold = [0.1]"), "axes.threshold: \\[0.1\\] is not a table"),
    (axis("threshold = { low = 0, high = 0.5, log = 1 }"), "axes.threshold.log: 1 is not true or false"),
    (axis("threshold = { low = 0, high = 0.5, step = 'a' }"), "axes.threshold.step: 'a' is not a number"),
    (axis("hard = { values = [1] }"), "axes.hard.values: 1 is not true or false"),
    (axis("seed = { values = [true] }"), "axes.seed.values: true is not a whole number"),
    (axis("seed = { values = [1.5] }"), "axes.seed.values: 1.5 is not a whole number"),
    (axis("seed = { low = 0, high = 4, step = 0.5 }"), "axes.seed.step: 0.5 is not a whole number"),
    (
        GOOD.replace("[baseline]", '[baseline]\nmean = "0.286"'),
        "baseline.mean: '0.286' is not a list; write \\[0.286\\]",
    ),
    (axis("sites = { values = ['a'] }"), "axes.sites.values: 'a' is not a list"),
    (GOOD.replace("0.3", "2024-01-01"), "axes.ratio.values: 2024-01-01 is not a number"),
    (GOOD + "[search]\nsamples = '3'", "search.samples: '3' is not a whole number"),
    (GOOD + "[search]\nsamples = 0", "search.samples: 0 should be greater than or equal to 1"),
    (GOOD + "[search]\nobjectives = {}", "search.objectives: is empty"),
    (GOOD + "[search]\nobjectives = ['accuracy']", "search.objectives: \\[accuracy\\] is not a table"),
    (GOOD + "[fixed]\nsites = 'a'", "fixed.sites: 'a' is not a list; write \\['a'\\]"),
    (GOOD + "[fixed]\nratios = 1", "fixed.ratios: 1 is not a table"),
    ("name = 'a/b'\n" + GOOD, "name: 'a/b' is not made of letters"),
    ("axes = 3\n" + HEAD, "axes: 3 is not a table"),
    (GOOD.replace('digits"', 'digits"\nepochs = -1'), "baseline.epochs: -1"),
    # what is missing, or has no effect
    (HEAD, "s.toml: axes: there are none, so nothing would vary"),
    (AXES, "s.toml: baseline: is missing"),
    ("[baseline]\nmodel = 'vgg16'\n" + AXES, "s.toml: baseline.dataset: is missing"),
    (GOOD + "[fixed]\nratio = 0.5", "axes.ratio: is also in \\[fixed\\]"),
    (GOOD + "[defaults.least-square]\ndamping = 0.1", "defaults.least-square: unknown decomposition .*least-squares"),
    (GOOD + "[defaults.least-squares]\ndampin = 0.1", "defaults.least-squares: unknown option .*damping"),
    (GOOD + "[defaults.least-squares]\ndamping = 11", "defaults.least-squares.damping: "),
    (axis("damping = { values = [0.1] }"), "axes.damping: no decomposition of this space has this option"),
    (GOOD + "[fixed]\ndamping = 0.1", "fixed.damping: .*is an option of .*least-squares"),
    (axis("calibration = { values = ['noise'] }"), "axes.calibration: no configuration of this space reads"),
    (GOOD + "[fixed]\ncalibration_images = 9", "fixed.calibration_images: no configuration of this space reads"),
    (GOOD + "[fixed]\nratios = { a = 0.1 }", "fixed.ratios.a: only allocation = 'per-site' reads ratios"),
    (axis('"ratios.a" = { values = [0.1] }'), "axes.ratios.a: only allocation = 'per-site' reads ratios"),
    (GOOD + "[fixed]\nallocation = 'per-site'\nratios = { a = 1.1 }", "fixed.ratios.a: 1.1 should be less than 1"),
    (axis("ratios = { values = [0.1] }"), "axes.ratios: takes a table; fix it"),
    # odd values
    (GOOD.replace("0.3", "-inf"), "axes.ratio.values: -inf is not a finite number"),
    (GOOD.replace("0.3", "2020-01-01"), "axes.ratio.values: 2020-01-01 is not a number"),
    (GOOD.replace("0.3", "[0.3]"), "axes.ratio.values: \\[0.3\\] is not a number"),
    (GOOD.replace("0.3", "{ a = 1 }"), "axes.ratio.values: "),
    (GOOD.replace("0.3", "'" + "x" * 500 + "'"), "axes.ratio.values: 'x+…x+' is not a number"),
    (GOOD + "[search]\nsamples = 10000000", "search.samples: 10000000 should be less"),
    (axis("seed = { values = [9223372036854775808] }"), "axes.seed.values: 9223372036854775808 should be less"),
    (axis("threshold = { low = 0.1, high = 0.9, step = 5e-324 }"), "step: 5e-324 makes more than 1,000,000,000 values"),
    (axis("threshold = { low = 0.1, high = nan }"), "axes.threshold.high: nan is not a finite number"),
    (axis("threshold = { low = 0.1, high = 0.9, step = nan }"), "axes.threshold.step: nan is not above 0"),
    (axis("threshold = { low = 0.1, high = 0.9, step = 12:00:00 }"), "axes.threshold.step: .* is not a number"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_refused_with_file_key_and_nearest_word(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_space({"name": "s", **tomllib.loads(text)}, "s.toml")
    said = str(caught.value)
    assert said.startswith("s.toml: ")
    assert "\n" not in said
    assert caught.value.exit_code == 2


def test_the_document_that_every_case_spoils_is_good() -> None:
    assert parse_space({"name": "s", **tomllib.loads(GOOD)}, "s.toml").size() == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[axes\nratio = 1", "line 1"),
        (b"[baseline]\nmodel = lenet", "mine.toml: not valid TOML: .*line 2"),
        (b"a = 1\na = 2\n", "mine.toml: not valid TOML: .*line 2"),
        (b"\xff\xfe", "mine.toml: cannot be read: it is not UTF-8 text"),
        (b"", "mine.toml: baseline: is missing"),
        (b"a = " + b"[" * 50_000, "mine.toml: tables or lists lie more than 16 deep in one another; flatten them"),
        (b"a = " + b"{ b = " * 50_000, "lie more than 16 deep"),
        (b"fixed." + b"a." * 5_000 + b"b = 1", "lie more than 16 deep"),
        (b"a = " + b"1" * 5_000, "mine.toml: a whole number does not fit into 64 bits; give a smaller one"),
        (b"a = 0x" + b"f" * 5_000, "does not fit into 64 bits"),
        (b"a = [9223372036854775808]", "does not fit into 64 bits"),
    ],
)
def test_unreadable_toml_names_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_space(str(path))
    assert str(path) in str(caught.value)


def test_missing_file() -> None:
    with pytest.raises(UsageError, match=r"no/such\.toml: there is no such file"):
        load_space("no/such.toml")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_space(str(tmp_path / "s.toml")).axes


def test_a_checkpoint_lies_beside_the_file_or_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spaces" / "nets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("[baseline]", "[baseline]\ncheckpoint = 'nets/a.pt'")
    assert text != GOOD
    Path("spaces/s.toml").write_text(text)
    found = load_space("spaces/s.toml").baseline.checkpoint
    assert found == Path("nets/a.pt"), "it is looked for here where it is not there"
    Path("nets").mkdir()
    for folder in (".", "spaces"):
        (Path(folder) / "nets/a.pt").touch()
        assert load_space("spaces/s.toml").baseline.checkpoint == Path(folder) / "nets/a.pt"
    changed = load_space("spaces/s.toml").override({"baseline.checkpoint": "b.pt"})
    assert changed.baseline.checkpoint == Path("b.pt"), "the command line speaks of here"


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path}: cannot be read")):
        load_space(str(tmp_path))


def test_unknown_bundled_space() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown search space 'lenet-fashon-mnist'; did you mean 'lenet-fashion-mnist'"
    ):
        load_space("lenet-fashon-mnist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ration": "0.5"}, "--set ration=0.5: ration: unknown key 'ration'; did you mean 'ratio'"),
        ({"baselin.epochs": "3"}, "did you mean 'baseline.epochs'"),
        ({"baseline.epoch": "3"}, "baseline.epoch: unknown key 'epoch'; did you mean 'epochs'"),
        ({"search.sample": "3"}, "search.sample: unknown key 'sample'; did you mean 'samples'"),
        ({"ratio": "1.5"}, "fixed.ratio: 1.5 should be less than 1"),
        ({"ratio": "[0.5"}, "'\\[0.5' is not one TOML value"),
        ({"ratio": "0.5\nseed = 1"}, "is not one TOML value"),
        ({"ratio": ""}, "'' is not one TOML value"),
        ({"ratio": "[]"}, "axes.ratio: the axis is empty"),
        ({"ratio": "[" * 50_000}, "lie more than 16 deep"),
        ({"seed": "1" * 5_000}, "does not fit into 64 bits"),
        ({"ratio": "{ low = 0.1, high = 0.2 }"}, "axes.ratio: is continuous"),
        ({"criterion": "l3"}, "unknown criterion 'l3'; did you mean"),
        (
            {"threshold": "0.3", "decomposition": "nmf"},
            "fixed.threshold: no decomposition of this space has this option",
        ),
        ({"ratio": "0.5", "criterion": "l1", "decomposition": "none"}, "axes: there are none"),
    ],
)
def test_refused_overrides(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_space("lenet-fashion-mnist").override(changes)
    assert str(caught.value).startswith("lenet-fashion-mnist with --set ")
    assert "\n" not in str(caught.value)


def test_grid_of_a_continuous_axis_is_refused_even_when_asked_for_directly() -> None:
    space = load_space("lenet-fashion-mnist").override(
        {"ratio": "{ low = 0.1, high = 0.2 }", "search.algorithm": "tpe"}
    )
    assert space.size() is None
    with pytest.raises(UsageError, match=r"axes\.ratio: .*continuous"):
        list(space.grid())


def test_every_bundled_space_is_good() -> None:
    assert [space.name for space in list_spaces()] == [
        "budget-vgg",
        "data-free",
        "digits-quick",
        "everything-fashion-mnist",
        "lenet-fashion-mnist",
        "lite0-agreement",
        "per-layer-nsga2",
        "recovery",
        "resnet56-cifar10",
        "vgg-fashion-mnist",
        "vgg16-cifar10",
        "wrn-40-4-cifar10",
    ]


def test_what_the_fuzzer_found_stays_one_short_line() -> None:
    """Lists where names are expected, lines inside values, and values without end."""
    for text in (
        axis("hard = { values = [true], when = { decomposition = [['nmf']] } }"),
        axis('hard = { values = [true], when = { decomposition = ["a\\nb"] } }'),
        axis('calibration_images = { values = [9], when = { decomposition = ["a\\nb"] } }'),
        GOOD.replace("model =", '"\\u2028" = 1\nmodel ='),
        axis("criterion = { values = ['" + "x" * 10_000 + "'] }"),
        axis("bn_scale = { values = [[" + "0.1, " * 3000 + "]] }"),
    ):
        with pytest.raises(UsageError) as caught:
            parse_space({"name": "s", **tomllib.loads(text)}, "s.toml")
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 600
