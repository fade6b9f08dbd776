"""What a request costs before its first token, unstreamed, on a new and on a kept connection; and another client."""

from __future__ import annotations

import httpx
import openai
from rounds import rounds
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
    for streamed, what in ((True, "first token, kept connection"), (False, "unstreamed, kept connection")):
        costs = rounds(
            {
                "ours": lambda streamed=streamed: [ask(ours, streamed=streamed) for _ in range(REQUESTS)],
                "openai": lambda streamed=streamed: [
                    ask_officially(official, streamed=streamed) for _ in range(REQUESTS)
                ],
            },
            count=REQUESTS,
        )
        rows += beside(what, costs["ours"].wall, {"openai": costs["openai"].wall}, {"openai": 0.4}, milli)
    return [*rows, *new_clients(server, url)]


def ask(client: Client, *, streamed: bool) -> None:
    """Ask for one token."""
    for chunk in client.send(client.request("x", stream=streamed)):
        assert chunk.choices


def ask_officially(client: openai.OpenAI, *, streamed: bool) -> None:
    """Ask for one token."""
    answer = client.completions.create(model="m", prompt="x", stream=streamed)
    assert [chunk.choices for chunk in (answer if streamed else [answer])]


def new_clients(server: Server, url: str) -> list[Row]:
    """Return what a client costs that asks once, and one that asks nothing."""

    def connect() -> None:
        for _ in range(CLIENTS):
            with Client(base_url=url, model="m", api_key=KEY) as client:
                ask(client, streamed=False)

    def connect_officially() -> None:
        for _ in range(CLIENTS):
            with openai.OpenAI(base_url=url, api_key=KEY) as client:
                ask_officially(client, streamed=False)

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
