"""Run all measurements, or those that are named, and write the table: `python benchmarks [NAME…]`."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from measurement import measure
from table import Row, markdown

RESULTS = Path(__file__).parent / "RESULTS.md"
MEASUREMENTS = {
    "chunks": "A streamed chunk",
    "latency": "A request",
    "loading": "Loading",
    "area": "The live area, in a real kernel",
    "prompts": "Many prompts",
    "rows": "Many rows, on disk",
    "recording": "Cassettes",
    "memory": "Memory",
    "model": "The built-in model",
    "exactness": "Exactness",
    "layers": "Where the time goes",
}
VERSIONS = (
    "completions-magic",
    "httpx",
    "msgspec",
    "ipykernel",
    "ipywidgets",
    "openai",
    "httpx-sse",
    "aiohttp",
    "litellm",
)
INTRODUCTION = """# Results

`make bench` writes this file: {date}, Python {python}, {versions}.

All of a row was measured in one run, in turns, as medians; the absolute figures are this machine's and say little, the
ratios last. CPU is that of the client's process. A ratio is ours over theirs, so small is good; a goal is the most
that it may be.

Where goals are missed: a request is mostly h11 and httpcore (the last section), and this is as far as their public
seams reach. A burst is recorded at 0.3 µs a chunk, the price of its text as JSON: a tenth of a burst's own cost buys a
copy of the bytes, and not much more. At 1,000 tokens a second a frame of 50 tokens costs 0.5 ms, a tenth of which is
their share in a burst: after each sleep the same code runs from cold caches, 120 µs of it in the kernel's hand-over of
50 packets, and differs from run to run. In the live area the first 1,000 tokens share what a cell costs once, about
6 ms, most of it the widget's making and the record. Log-probabilities are at their goal's edge.

"""


def main(names: list[str]) -> None:
    """Measure and write; with names, only print."""
    sections: dict[str, list[Row]] = {}
    for name in names or MEASUREMENTS:
        start = time.perf_counter()
        # In a process of its own: what one has loaded would slow down the next.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            sections[MEASUREMENTS[name]] = process.submit(measure, name).result()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    table = markdown(sections)
    print(table)
    if not names:
        listed = ", ".join(f"{package} {version(package)}" for package in VERSIONS)
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        RESULTS.write_text(INTRODUCTION.format(date=day, python=platform.python_version(), versions=listed) + table)


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a list of prices
    main(sys.argv[1:])
