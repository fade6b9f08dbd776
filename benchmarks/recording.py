"""What recording adds to a stream, and what a replay costs."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

from rounds import rounds
from script import Script
from server import Server
from table import Row, beside

from completions_magic import Client

BURST = 20_000
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
            costs = compare(server.url(script), Path(folder), script.chunks)
        live = costs["live"]
        rows += beside(
            f"CPU of a chunk {what}, recorded", costs["recorded"], {"not recorded": live}, {"not recorded": 1.1}
        )
        rows += beside(f"CPU of a chunk {what}, recorded again", costs["again"], {"not recorded": live}, {})
        rows += beside(f"CPU of a chunk {what}, replayed", costs["replayed"], {"live": live}, {})
    return rows


def compare(url: str, folder: Path, chunks: int) -> dict[str, float]:
    """Return the CPU of a chunk by way; `live` is without a cassette."""
    fresh = (folder / f"{number}.jsonl" for number in count())
    known = next(fresh)

    def read(cassette: Path | None = None, record: str | None = None) -> None:
        with Client(base_url=url, model="m", cassette=cassette, record=record) as client:
            assert sum(len(chunk.choices) for chunk in client.stream("x")) == chunks

    ways = {
        "live": read,
        "recorded": lambda: read(next(fresh)),
        "again": lambda: read(known, "all"),
        "replayed": lambda: read(known, "none"),
    }
    return {name: cost.cpu for name, cost in rounds(ways, times=5, count=chunks).items()}
