"""What a request costs before its first token, unstreamed, on a new and on a kept connection; and another client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import httpx
import openai
from rounds import in_turns, rounds
from script import Script
from server import Server
from table import Row, absolute, beside, milli
from ways import KEY

from completions_magic import Client

REQUESTS = 50
CLIENTS = 20


def measure(server: Server) -> list[Row]:
    """Return wall time a request beside the official client, and the CPU of a second `Client()`."""
    url = server.url(Script(chunks=1))
    ours, official = Client(base_url=url, model="m", api_key=KEY), openai.OpenAI(base_url=url, api_key=KEY)
    rows = []
    for what, first, first_officially in (
        (
            "first token, kept connection",
            lambda: ours.stream("x"),
            lambda: official.completions.create(model="m", prompt="x", stream=True),
        ),
        (
            "unstreamed, kept connection",
            lambda: iter([ours.complete("x")]),
            lambda: iter([official.completions.create(model="m", prompt="x")]),
        ),
    ):
        seconds = in_turns({"ours": partial(until, first), "openai": partial(until, first_officially)}, 5)
        mine, theirs = median(seconds["ours"]), median(seconds["openai"])
        rows += beside(what, mine, {"openai": theirs}, {"openai": 0.4}, milli)
    return [*rows, *new_clients(server, url)]


def until(first: Callable[[], Iterator[object]]) -> float:
    """Return the seconds from asking to the first chunk, on average; what follows it is read, and not counted."""
    spent = 0.0
    for _ in range(REQUESTS):
        start = time.perf_counter()
        chunks = iter(first())
        assert next(chunks).choices
        spent += time.perf_counter() - start
        for _ in chunks:
            pass
    return spent / REQUESTS


def new_clients(server: Server, url: str) -> list[Row]:
    """Return what a client costs that asks once, and one that asks nothing."""

    def connect() -> None:
        for _ in range(CLIENTS):
            with Client(base_url=url, model="m", api_key=KEY) as client:
                client.complete("x")

    def connect_officially() -> None:
        for _ in range(CLIENTS):
            with openai.OpenAI(base_url=url, api_key=KEY) as client:
                client.completions.create(model="m", prompt="x")

    secured = f"https://127.0.0.1:{server.port}/v1"
    costs = rounds(
        {
            "new": connect,
            "new openai": connect_officially,
            "second": lambda: [Client(base_url=secured, model="m", api_key=KEY) for _ in range(CLIENTS)],
            "second httpx": lambda: [httpx.Client() for _ in range(CLIENTS)],
            "second openai": lambda: [openai.OpenAI(base_url=secured, api_key=KEY) for _ in range(CLIENTS)],
        },
        times=3,
        count=CLIENTS,
    )
    others = {"httpx.Client()": costs["second httpx"].cpu, "openai": costs["second openai"].cpu}
    return [
        *beside("a new client and one answer", costs["new"].wall, {"openai": costs["new openai"].wall}, {}, milli),
        absolute("CPU of a second Client()", costs["second"].cpu, 0.3e-3, milli),
        *beside("CPU of a second Client()", costs["second"].cpu, others, {}, milli),
    ]
