"""``sweep init``: a network is looked at, and the space that is written can be run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.channels import ChannelSet
from core.models import load_model
from core.records import TrialRecord
from core.survey import Survey
from search_spaces import load_space
from search_spaces.starting import chosen_axes, structure
from sweep.cli import main

NETWORK = ["lenet-300-100", "--dataset", "digits"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def weights(tmp_path) -> str:
    torch.manual_seed(0)
    torch.save(load_model("lenet-300-100").state_dict(), tmp_path / "net.pt")
    return "net.pt"


def written(capsys, *words: str) -> tuple[dict, str]:
    assert main(["init", *words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    return report, Path(report["file"]).read_text()


def test_the_space_says_what_was_found_and_can_be_run(capsys, weights):
    report, text = written(capsys, *NETWORK, "--checkpoint", weights, "--mean", "0", "--std", "1")
    space = load_space(report["file"])
    assert space.name == "my-space"
    assert (space.baseline.mean, space.baseline.std) == ((0.0,), (1.0,))
    assert space.planned() == report["trials"] == 72
    assert space.baseline.expected_accuracy is None, "a network that is doubtful is not expected to be so"
    assert "WARNING: " in text
    assert report["doubts"]
    assert [one["size"] for one in report["sets"]] == [300, 100]
    assert report["skipped"] == {"ip3": "it is the network's output"}
    assert "# Left alone: ip3 (it is the network's output)." in text
    assert f"{100 * report['tried']['params_fraction']:.1f} % of the" in text
    assert "A network that was trained elsewhere has most likely seen them" in " ".join(text.split()).replace("# ", "")


def test_data_without_labels_or_validation_images_are_scored_as_they_can_be(capsys, tmp_path, monkeypatch, weights):
    (tmp_path / "init_data.py").write_text(
        "import torch\nfrom core.datasets import ImageDataset, Split\n"
        "def parts(classes, held):\n"
        "    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))\n"
        "    split = lambda n: Split(images[:n], torch.zeros(n, dtype=torch.long))\n"
        "    return ImageDataset('mine', split(60), split(held), split(30), (0.5,), (0.5,), classes)\n"
        "def blind(): return parts((), 20)\n"
        "def few(): return parts(tuple('0123456789'), 0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--checkpoint", weights, "--force"]
    report, text = written(capsys, "lenet-300-100", "--dataset", "init_data:blind", *words)
    assert report["accuracy"] is None
    assert 'evaluator = "agreement"' in text
    assert "expected_accuracy" not in text
    assert "% agreement on the validation split" in " ".join(text.split()).replace("# ", "")
    _, text = written(capsys, "lenet-300-100", "--dataset", "init_data:few", *words)
    assert load_space("my-space.toml").evaluation.split == "test"
    assert "evaluator" not in text


def test_what_is_not_trained_yet_is_not_trained_to_be_looked_at(capsys):
    report, text = written(capsys, *NETWORK)
    assert report["accuracy"] is report["tried"] is None
    assert "# trained by the first sweep" in text
    assert "expected_accuracy" not in text
    assert not Path("results/.baselines").exists()
    assert load_space(report["file"]).planned() == 72


def test_a_checkpoint_is_named_as_the_file_finds_it(capsys, weights):
    _, text = written(capsys, *NETWORK, "--checkpoint", weights, "--out", "spaces/mine.toml")
    assert 'checkpoint = "../net.pt"' in text
    assert load_space("spaces/mine.toml").baseline.checkpoint.resolve() == Path("net.pt").resolve()
    absolute = str(Path(weights).absolute())
    assert f'checkpoint = "{absolute}"' in written(capsys, *NETWORK, "--checkpoint", absolute)[1]


def test_a_terminal_is_asked_and_a_pipe_is_not(capsys, monkeypatch, weights):
    answers = io.StringIO(f"\nlenet-300-100\ngone.pt\n{weights}\n\ndigits\nabc\n\n\n")
    monkeypatch.setattr("sys.stdin", answers)
    assert main(["init"]) == 2
    assert "the network is missing; such as: sweep init " in capsys.readouterr().err
    assert main(["init", "lenet-300-100"]) == 2
    assert "--dataset is missing; such as: sweep init " in capsys.readouterr().err
    monkeypatch.setattr(answers, "isatty", lambda: True)
    assert main(["init"]) == 0
    told = capsys.readouterr().err
    assert told.count("file with its weights") == 2
    assert told.count("an answer is needed") == 2
    assert "there is no file gone.pt" in told
    assert "a number, or one for each channel" in told
    assert 'checkpoint = "net.pt"' in Path("my-space.toml").read_text()
    assert "mean" not in load_space("my-space.toml").document["baseline"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--out", "my-space.toml"], "my-space.toml is there already; take --force to replace it, or another name"),
        (["--out", "space.json"], "--out space.json: a space is a file such as my-space.toml"),
        (["--out", "a b.toml"], "--out a b.toml: a space is a file such as my-space.toml"),
        (["--out", "new.toml", "--checkpoint", "gone.pt"], "checkpoint gone.pt does not exist"),
        (["--out", "new.toml", "--mean", "x"], "--mean x: give a number"),
        (["--out", "new.toml", "--expected-accuracy", "101"], "expected_accuracy = 101.0: input should be"),
    ],
)
def test_what_is_refused(capsys, words, what):
    Path("my-space.toml").write_text("mine")
    assert main(["init", *NETWORK, *words]) in (1, 2)
    assert what in capsys.readouterr().err
    assert Path("my-space.toml").read_text() == "mine"
    assert not Path("new.toml").exists()


def test_an_own_file_is_replaced_on_demand(capsys):
    Path("my-space.toml").write_text("mine")
    assert "[axes]" in written(capsys, *NETWORK, "--force")[1]


def survey(**changes) -> Survey:
    one = ChannelSet("a", ("a",), ("b",), (), 8, torch.arange(8))
    record = TrialRecord(key="k", config={}, split="validation", started_at=0.0, provenance={}, status="failed")
    return replace(Survey((one,), {}, 1e6, 0.05, record, 0.0, 1.0), **changes)


@pytest.mark.parametrize(
    ("seconds", "workers", "trials"),
    [(0.1, 1, 72), (20, 2, 72), (20, 1, 20), (500, 2, 5)],
)
def test_the_grid_fits_the_pace(seconds, workers, trials):
    count = 1
    for values in chosen_axes(survey(seconds=seconds), workers).values():
        count *= len(values)
    assert count == trials


def test_no_budget_where_it_cannot_be_reached():
    assert chosen_axes(survey(least=0.3), 2)["allocation"] == ["uniform"]
    assert chosen_axes(survey(least=0.3, seconds=1e6), 2)["allocation"] == ["uniform"]


def test_many_layers_of_one_reason_are_not_all_named():
    (_, line) = structure(survey(skipped={f"l{i}": "it is frozen" for i in range(20)}))
    assert line.endswith("l11 and 8 more (it is frozen).")
