"""Names that nobody registered and that are known elsewhere: the message says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.elsewhere import as_module, in_a_file, network
from core.errors import UnknownNameError, UsageError
from core.evaluators import find_evaluator
from core.parts import DATASETS, MODELS
from core.plugins import import_callable

NETS = """
raise SystemExit("it runs")
def make(): ...
class Net: ...
def _secret(): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "nets.py").write_text("def small(): ...\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    return tmp_path


@pytest.mark.parametrize("name", ["my_nets", "my_nets.py", "./my_nets.py"])
def test_a_file_is_read_and_not_run(here: Path, name: str) -> None:
    assert in_a_file(name) == ("my_nets.py is a module; name the function in it, too: my_nets:make or my_nets:Net")


@pytest.mark.parametrize("name", ["broken", "empty", "nothing", "", ".", "a\0b", "/", "..", "x" * 5000])
def test_nothing_is_said_of_what_is_no_module_with_functions(here: Path, name: str) -> None:
    assert in_a_file(name) == ""


def test_every_part_that_may_be_ones_own_says_so(here: Path) -> None:
    for registry in (MODELS, DATASETS):
        with pytest.raises(UsageError, match=rf"^there: unknown {registry.kind} 'deep/nets.py': .*deep\.nets:small"):
            registry.require("deep/nets.py", "there: ")
    with pytest.raises(UsageError, match=r"unknown evaluator 'my_nets': .*my_nets:make"):
        find_evaluator("my_nets")
    with pytest.raises(UsageError, match=r"name the module and not its file: deep\.nets:small"):
        import_callable("./deep/nets.py:small", "model")


def test_a_module_is_called_as_python_calls_it() -> None:
    assert as_module("./nets/small.py") == as_module("nets.small") == as_module("../nets/small") == "nets.small"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("resnet50", "write torchvision:resnet50 or timm:resnet50"),
        ("resnet50@IMAGENET1K_V2", "write torchvision:resnet50@IMAGENET1K_V2"),
        ("resnet57", ""),
    ],
)
def test_a_network_of_a_publisher_is_known(here: Path, name: str, written: str) -> None:
    pytest.importorskip("timm")
    assert network(name) == written


def test_what_is_nowhere_is_answered_with_the_nearest(here: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'resnet57'; did you mean 'resnet56'"):
        MODELS.require("resnet57")
