"""What a trial prints and warns, kept with its record."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from sweep.text import abridged


@contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Collect what Python code in the block writes to stdout, stderr, warnings and logging.

    Yields:
        A function that returns the text so far, its middle left out where it is long.
    """
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with redirect_stdout(buffer), redirect_stderr(buffer):
            yield lambda: abridged(buffer.getvalue())
    finally:
        root.removeHandler(handler)
