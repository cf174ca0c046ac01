"""``sweep show`` says what a sweep lacks; and what can be known is refused before a network is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clusters import free_port

from core.baselines import prepare_baseline
from core.config import BaselineConfig
from core.errors import UsageError
from search_spaces import load_space
from sweep.cli import main

QUICK = BaselineConfig(model="lenet-300-100", dataset="digits", epochs=1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shown(capsys, *words: str) -> tuple[int, list[str]]:
    """Exit code of ``sweep show``, and what is missing."""
    code = main(["show", "digits-quick", *words])
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing: ")]
    return code, [line for line in found if line != "missing: nothing"]


def test_a_package_that_a_network_needs_is_looked_for(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sweep.commands.missing._is_there", lambda package: package not in ("timm", "transformers"))
    (folder := tmp_path / "net").mkdir()
    for model, package, extra in (("timm:resnet18", "timm", "timm"), (f"huggingface:{folder}", "transformers", "hugg")):
        _, lines = shown(capsys, "--set", f"baseline.model={model}")
        assert any(f"the package {package!r} is not installed: pip install 'neuron" in line for line in lines), lines
        assert any(f"sweep[{extra}" in line for line in lines)
    assert any(f"{folder} has no config.json" in line for line in lines)


def test_nothing_is_missing(capsys):
    assert shown(capsys) == (0, [])
    assert main(["show", "digits-quick", "--search", "random", "--samples", "7"]) == 0
    out = capsys.readouterr().out
    assert "missing: nothing" in out
    assert "search: random" in out
    assert "7 trials" in out
    Path("mine.py").write_text("raise RuntimeError('run by a dry run')")
    Path("net.pt").touch()
    assert shown(capsys, "--set", "baseline.model=mine:make", "--set", "baseline.checkpoint=net.pt") == (0, [])
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--set", "baseline.checkpoint=gone.pt"], "checkpoint gone.pt: there is no such file; bring it"),
        (["--set", "baseline.model=gone.nets:make"], "model 'gone.nets:make': there is no module 'gone' here; install"),
        (["--evaluate", "gone:evaluate"], "evaluator 'gone:evaluate': there is no module 'gone' here; install it"),
        (["--set", "baseline.dataset=gone:load"], "dataset 'gone:load': there is no module 'gone' here; install it"),
        (["--set", "baseline.dataset=image-folder:gone"], "dataset 'image-folder:gone': there is no such folder"),
        (["--results", "file/results"], "file/results: cannot be written; check its permissions"),
        (["--gpus-per-trial", "1"], "--gpus-per-trial 1: this machine has no usable GPU"),
    ],
)
def test_what_is_missing_is_said(capsys, monkeypatch, words, what):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("file").touch()
    code, (line,) = shown(capsys, *words)
    assert code == 1
    assert line.startswith(f"missing: {what}")


def test_addresses_that_are_named_are_asked(capsys):
    port = free_port()
    where = ["--address", f"127.0.0.1:{port}", "--tracking-uri", f"http://127.0.0.1:{port}"]
    code, lines = shown(capsys, *where)
    assert code == 1
    assert [line.split(" (")[0] for line in lines] == [
        f"missing: no Ray cluster answers at 127.0.0.1:{port}",
        f"missing: no MLflow server answers at http://127.0.0.1:{port}",
    ]
    assert main(["show", "digits-quick", "--json", *where]) == 1
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 2


@pytest.mark.parametrize("words", [["--workers", "0"], ["--tracking-uri", "xsql://x"], ["--address", "ray://x:1"]])
def test_what_is_never_right_is_refused(capsys, words):
    assert main(["show", "digits-quick", *words]) == 2
    assert capsys.readouterr().err.startswith(f"sweep: {words[0]} {words[1]}: give ")


def test_another_search_is_chosen_before_the_grid_is_looked_at(capsys):
    endless = "ratio={low=0.1, high=0.9}"
    assert main(["show", "digits-quick", "--set", endless]) == 2
    assert "has no grid" in capsys.readouterr().err
    assert main(["show", "digits-quick", "--set", endless, "--set", "search.algorithm=tpe"]) == 0
    assert "endlessly many" in capsys.readouterr().out


def never(*_: object, **__: object) -> None:
    raise AssertionError("trained")


def test_sites_that_match_nothing_are_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("core.baselines.train", never)
    with pytest.raises(UsageError, match=r"sites: 'nope\*' matches no producer of a channel set; known: ip1, ip2"):
        prepare_baseline(QUICK, tmp_path, sites=[("ip1",), ("ip*", "nope*")])


def test_sites_are_looked_at_where_the_network_is_there_too(tmp_path):
    prepare_baseline(QUICK, tmp_path, sites=[("ip*",)])
    with pytest.raises(UsageError, match="sites: 'nope' matches no producer"):
        prepare_baseline(QUICK, tmp_path, sites=[("nope",)])


def test_code_that_is_not_there_is_told_before_the_data_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("core.baselines.load_data", never)
    with pytest.raises(UsageError, match="there is no module 'gone'"):
        prepare_baseline(BaselineConfig(model="gone:make", dataset="digits"), tmp_path)


def test_a_space_knows_its_sites():
    space = load_space("digits-quick")
    assert space.sites() == []
    assert space.override({"sites": '["ip1", "a*"]'}).sites() == [("ip1", "a*")]
    assert space.override({"sites": '{values=[["ip1"], ["ip*"]]}'}).sites() == [("ip1",), ("ip*",)]


def test_a_sweep_looks_at_its_sites_before_it_trains(capsys, monkeypatch):
    monkeypatch.setattr("core.baselines.train", never)
    assert main(["run", "digits-quick", "--set", 'sites=["nope"]']) == 2
    assert "sites: 'nope' matches no producer" in capsys.readouterr().err
    assert not Path("results/digits-quick").exists()
