"""The pictures of README and docs/, from a real sweep: the front, the report and MLflow, as a browser shows them.

Run: ``make gallery`` (a minute; needs Chromium; runs ``lenet-fashion-mnist`` first where the results folder has none).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

DOCS = Path("docs")
SWEEP = "lenet-fashion-mnist"
COLOURS = 200
"""Of a committed picture: enough for plots and pages, and a quarter of the bytes."""
PANEL = 0.735
"""Share of MLflow's page that is left of its assistant."""


def browser() -> str:
    """The browser's command.

    Raises:
        SystemExit: there is none.
    """
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("gallery: install Chromium")
    return found


def photograph(address: str, path: Path, size: tuple[int, int], wait: int = 15_000, *, right: float = 1.0) -> None:
    """Save what a page looks like after so many milliseconds of its own time; ``right``: what is left of its width."""
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "page.png"
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={taken}"]
        words += [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder}/profile"]
        words += [f"--virtual-time-budget={wait}", address]
        subprocess.run([browser(), *words], check=True, capture_output=True, timeout=180)
        with Image.open(taken) as picture:
            small(picture.crop((0, 0, round(picture.width * right), picture.height)), path)


def small(picture: Image.Image, path: Path) -> None:
    """Save a picture with few colours."""
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


@contextmanager
def served(results: Path, port: int) -> Iterator[str]:
    """The address that ``sweep ui`` prints, while it runs."""
    words = [sys.executable, "-m", "sweep.cli", "ui", "--results", str(results), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("MLflow UI on ").removesuffix(" (Ctrl-C ends it)\n")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def sweep(*words: str) -> None:
    """Run one command."""
    subprocess.run([sys.executable, "-m", "sweep.cli", *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> int:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all sweeps")
    parser.add_argument("--port", type=int, default=5017, help="for MLflow")
    options = parser.parse_args()
    if not (options.results / SWEEP).is_dir():
        sweep("run", SWEEP, "--results", str(options.results))
    with tempfile.TemporaryDirectory() as folder:
        sweep("pareto", SWEEP, "--results", str(options.results), "--format", "png", "--out", folder)
        with Image.open(Path(folder) / "pareto.png") as picture:
            small(picture, DOCS / "front.png")
    report = (options.results / SWEEP / "report.html").resolve().as_uri()
    photograph(report, DOCS / "report.png", (1280, 900), 5_000)
    with served(options.results, options.port) as address:
        charts = f"{address.replace('ShareKey=sweep', 'ShareKey=front')}&compareRunsMode=CHART"
        photograph(address, DOCS / "mlflow.png", (1900, 700), right=PANEL)
        photograph(charts, DOCS / "mlflow-charts.png", (1900, 950), 45_000, right=PANEL)  # plotly loads late
        home, _, rest = address.partition("#")
        experiment = rest.split("/")[2]
        models = f"{home}#/experiments/{experiment}/models?workflowType=machine_learning"
        photograph(models, DOCS / "mlflow-models.png", (1900, 800), right=PANEL)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
