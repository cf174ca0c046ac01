"""List the search spaces that come with the package, or copy one to start your own from."""

from __future__ import annotations

import json
import re
import textwrap
from argparse import Namespace
from pathlib import Path

from core.errors import UnknownNameError, UsageError
from sweep.arguments import Parser, require_space_file

EXAMPLE = "sweep spaces --copy vgg-fashion-mnist my-space.toml"
HEAD = """\
# A search space: which network is compressed, on which data, and what varies. Copied from {name}.
#
#   sweep show {file}          what it varies, checked; nothing is run
#   sweep run {file}           the sweep
#
# [baseline]    the original network. model: a name, torchvision:NAME, timm:NAME, huggingface:FOLDER, or
#               package.module:factory of yours (which runs that code); dataset: a name, or package.module:factory;
#               checkpoint: a file with weights (none: it is trained); epochs, batch_size, lr, weight_decay,
#               momentum, augment, seed: of that training
# [search]      algorithm (grid, random, tpe, nsga2), samples: how many configurations; objectives
# [evaluation]  split: what trials are scored on, validation or test
# [fixed]       one value for every trial
# [axes]        what varies: {{ values = [...] }} or {{ low = 0.1, high = 0.9, step = 0.1 }} (log = true);
#               when = {{ decomposition = ["nmf"] }}: only where that holds
#
# What may be fixed or vary:
{names}
"""


def add_arguments(parser: Parser) -> None:
    """What is to be copied, if anything is."""
    add = parser.add_argument
    add("--copy", nargs=2, metavar=("SPACE", "FILE"), help="write a space as a TOML file with comments")
    add("--force", action="store_true", help="replace a file that is there")
    parser.json()


def run(options: Namespace) -> int:
    """Print a line for each space, or copy one.

    Raises:
        UsageError: there is something to force, and nothing to copy.
    """
    if options.copy is not None:
        return copy(options.copy[0], Path(options.copy[1]), force=options.force)
    if options.force:
        raise UsageError("--force replaces the file of --copy; give that too")
    from search_spaces import list_spaces

    found = [space.describe() for space in list_spaces()]
    if options.json:
        rows = [{"name": s.name, "description": s.description, "size": s.size, "trials": s.trials} for s in found]
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(space.name) for space in found)
    for space in found:
        print(f"{space.name:<{width}}  {space.trials:>5} trials  {space.description}")
    return 0


def copy(name: str, path: Path, *, force: bool) -> int:
    """Write a bundled space to ``path``, under the name of the file, and say how to go on.

    Raises:
        UnknownNameError: there is no such space.
        UsageError: the file is there already, or cannot be written.
    """
    from core.files import writing
    from search_spaces.names import known_names
    from search_spaces.schema import bundled, load_space

    files = bundled()
    if name not in files:
        raise UnknownNameError("search space", name, files)
    require_space_file(path, force=force)
    words = ", ".join(sorted(known_names()))
    names = textwrap.fill(words, 118, initial_indent="#   ", subsequent_indent="#   ", break_on_hyphens=False)
    text = re.sub(r'(?m)^name = ".*"$', f'name = "{path.stem}"', files[name].read_text(encoding="utf-8"), count=1)
    with writing(path) as temporary:
        temporary.write_text(f"{HEAD.format(name=name, file=path, names=names)}\n{text}", encoding="utf-8")
    load_space(str(path))  # it means what the bundled one does
    print(f"{path}: edit it, look at it with 'sweep show {path}', and 'sweep run {path}'")
    return 0
