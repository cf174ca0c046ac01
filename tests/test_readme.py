"""What README, CONTRIBUTING and docs/ show is run, or at least understood by the real parsers."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import UsageError
from core.models import load_model
from sweep.cli import VERBS, dispatch
from tests.pages import PAGES, ROOT, blocks, commands, spans

PACKAGES = ("core", "search_spaces", "sweep", "dashboards")
FOLDERS = "|".join((*PACKAGES, "tests", "benchmarks", "docs"))
KINDS = {"criteria": "criterion", "decompositions": "decomposition"}
SPACES = {path.stem for path in (ROOT / "search_spaces").glob("*.toml")}
IDLE_MAKE = ("--dry-run", "--always-make")
BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [
    (str(block), words)
    for block in BLOCKS
    if block.language in ("bash", "sh", "shell", "console", "")
    for words in commands(block.text)
]
SWEEPS = [pytest.param(words, id=f"{page} {' '.join(words)}") for page, words in SHELL if words[0] == "sweep"]
MAKES = [pytest.param(words, id=f"{page} {' '.join(words)}") for page, words in SHELL if words[0] == "make"]
SPANS = [(page, span) for page in PAGES for span in spans(page)]
PARTS = [block for block in PYTHON if re.search(r"^@register(?:_rows)?\(", block.text, re.MULTILINE)]
SCRIPTS = [
    pytest.param(
        block, id=str(block), marks=[pytest.mark.slow] if re.search(r"sweep|train|recover", block.text) else []
    )
    for block in PYTHON
    if block not in PARTS
]


@pytest.fixture
def parsed(monkeypatch):
    """Understands a command line with the real parsers and gives the options back; nothing is done."""
    monkeypatch.setattr("sweep.storage.mirror.fetch", Path)

    def parse(words: list[str]) -> Any:
        taken: list[Any] = []
        if words and words[0] in VERBS:
            module = importlib.import_module(f"sweep.commands.{words[0]}")
            monkeypatch.setattr(module, "run", lambda options: taken.append(options) or 0)
        assert dispatch(words) == 0
        return taken[0] if taken else None

    return parse


def test_the_pages_are_read():
    assert len(PAGES) >= 7
    assert SCRIPTS
    assert PARTS
    assert len(SWEEPS) >= 20
    assert len(MAKES) >= 2


@pytest.mark.parametrize("words", SWEEPS)
def test_a_sweep_command_is_understood(words, parsed):
    options = parsed(words[1:])
    if words[1] == "run" and options.space in SPACES:
        from sweep.commands.run import chosen_space

        assert chosen_space(options).describe().axes


@pytest.mark.parametrize("words", MAKES)
def test_a_make_command_names_a_target(words):
    done = subprocess.run(["make", *IDLE_MAKE, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["make", "nothing"], ["make", "test", "nothing"]])
def test_an_unknown_target_is_noticed(words):
    with pytest.raises(AssertionError):
        test_a_make_command_names_a_target(words)


@pytest.mark.parametrize(
    "words", [["run"], ["runs", "x"], ["run", "x", "--sample", "3"], ["stop", "a", "b"], ["status", "--json=x"]]
)
def test_what_is_wrong_is_noticed(words, parsed):
    with pytest.raises(UsageError):
        parsed(words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_prose_are_known(page, parsed):
    """A verb alone may stand for the command, so what a verb needs may be missing."""
    targets = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())[0].split()
    for span in (span for where, span in SPANS if where == page):
        if span.startswith("make "):
            assert {word for word in shlex.split(span)[1:] if "=" not in word} <= {*targets, "&&", "make"}, span
        if span.startswith("sweep ") and "…" not in span:
            try:
                parsed(shlex.split(span)[1:])
            except UsageError as error:
                assert "arguments are required" in str(error), span  # noqa: PT017  one of two good ends


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    made = {block.file for block in PARTS}
    for span in {span for where, span in SPANS if where == page}:
        if re.fullmatch(rf"({FOLDERS})/[\w./*-]+", span) and span not in made:
            assert list(ROOT.glob(span)), f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in link or ((ROOT / page).parent / link).exists(), f"{page}: {link}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("block", SCRIPTS)
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    """With a network and images by the names that README uses; a sweep in a process of its own, as Ray wants it."""
    if "from sweep import run" in block.text:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", block.text], cwd=tmp_path, env=environment, check=True, timeout=300)
        return
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    known: dict[str, Any] = {"model": load_model("lenet-300-100"), "images": torch.rand(512, 1, 28, 28)}
    exec(compile(block.text, str(block), "exec"), known)
    if "result" in known:
        smaller = sum(weight.numel() for weight in known["result"].model.parameters())
        assert smaller < sum(weight.numel() for weight in known["model"].parameters())
        for call in (span for page, span in SPANS if page == block.page and re.fullmatch(r"core\.[\w.]+\(.*\)", span)):
            importlib.import_module(call.split("(")[0].rpartition(".")[0])
            known["core"] = sys.modules["core"]
            exec(call, known)


@pytest.mark.slow
@pytest.mark.parametrize("block", PARTS, ids=str)
def test_a_part_is_added_in_one_file(block, tmp_path):
    """Put where the page says, in a copy of the sources, it is found by its name, used, and in nobody's way."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert (tmp_path / block.file).parent.is_dir()
    assert not (tmp_path / block.file).exists()
    (tmp_path / block.file).write_text(block.text)
    [name] = re.findall(r'^@register(?:_rows)?\("(.*?)"', block.text, re.MULTILINE)
    kind = KINDS[Path(block.file).parts[1]]
    use = f"""
import torch, core
from core.compress import compress
from core.models import load_model
model = load_model("lenet-300-100")
result = compress(model, torch.zeros(1, 1, 28, 28), ratio=0.5, {kind}={name!r})
print(core.__file__, [len(site.kept) for site in result.sites])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", use) == f"{tmp_path}/core/__init__.py [150, 50]\n"
    assert name in run("-m", "sweep.cli", "show", "digits-quick", "--set", f"{kind}={name}")
