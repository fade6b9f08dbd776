"""Whether every text comes as it was sent: in every framing, with every line end, for any characters and any n."""

from __future__ import annotations

import itertools

from script import ENDS, Script
from server import Server
from table import Row
from ways import KEY

from completions_magic import Client

CHUNKS = 300
FRAMINGS = ("event", "cut", "many", "close")


def measure(server: Server) -> list[Row]:
    """Return how many of all combinations gave another text."""
    cases = list(itertools.product(FRAMINGS, ENDS, (0, 1), (1, 4), (0, 5), (0, 1)))
    wrong = []
    for framing, ends, odd, n, logprobs, more in cases:
        script = Script(framing, CHUNKS, n=n, logprobs=logprobs, ends=ends, odd=odd, more=more)
        for key in (None, KEY):
            with Client(base_url=server.url(script), model="m", api_key=key) as client:
                texts = client.complete("x", stream=True, n=n).texts
            if texts != script.texts:
                wrong.append(script)
    asked = 2 * len(cases)
    return [
        Row(
            f"texts that are not what was sent, of {asked} streams of {CHUNKS} chunks",
            str(len(wrong)),
            wanted="0",
            is_held=not wrong,
        )
    ]
