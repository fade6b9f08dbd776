"""What recording adds to a stream, and what a replay costs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rounds import rounds
from script import Script
from server import Server
from table import Row, beside

from completions_magic import Client

BURST = 5_000
STEADY = 500
RATE = 1_000


def measure(server: Server) -> list[Row]:
    """Return the CPU of a chunk with and without a cassette, in a burst and as tokens come."""
    rows = []
    for script, what in (
        (Script(chunks=STEADY, rate=RATE), "at 1,000 tokens a second"),
        (Script(chunks=BURST), "in a burst"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            costs = compare(server.url(script), Path(folder) / "cassette.jsonl", script.chunks)
        goals = {"not recorded": 1.1}
        rows += beside(f"CPU of a chunk {what}, recorded", costs["all"], {"not recorded": costs["live"]}, goals)
        rows += beside(f"CPU of a chunk {what}, replayed", costs["none"], {"live": costs["live"]}, {})
    return rows


def compare(url: str, path: Path, chunks: int) -> dict[str, float]:
    """Return the CPU of a chunk by record mode; `live` is without a cassette."""

    def read(mode: str | None) -> None:
        # A fresh client replays from the first recording again.
        with Client(base_url=url, model="m", cassette=path if mode else None, record=mode) as client:
            assert sum(len(chunk.choices) for chunk in client.stream("x")) == chunks

    ways = {"live": lambda: read(None), "all": lambda: read("all"), "none": lambda: read("none")}
    return {name: cost.cpu for name, cost in rounds(ways, times=3, count=chunks).items()}
