"""Many prompts at once, against a server that takes 20 ms: requests a second and CPU a request."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
from urllib.parse import urlsplit

import aiohttp
import openai
from rounds import Cost, rounds
from script import Script
from server import Server
from table import Row, beside
from ways import KEY

from completions_magic import Client

SCRIPT = Script(chunks=8, delay=20)
NAMES = ("AsyncOpenAI", "aiohttp", "a bare selector loop")


def measure(server: Server) -> list[Row]:
    """Return time and CPU a request at two concurrencies."""
    url = server.url(SCRIPT)
    rows = []
    for at_once, requests in ((64, 4096), (256, 4096)):
        costs = rounds(
            {
                "ours": lambda at_once=at_once, requests=requests: ask(url, at_once, requests),
                NAMES[0]: lambda at_once=at_once, requests=requests: asyncio.run(
                    ask_officially(url, at_once, requests)
                ),
                NAMES[1]: lambda at_once=at_once, requests=requests: asyncio.run(ask_aiohttp(url, at_once, requests)),
                NAMES[2]: lambda at_once=at_once, requests=requests: ask_barely(url, at_once, requests),
            },
            times=2,
            count=requests,
        )
        rows += compare(at_once, costs)
    return rows


def compare(at_once: int, costs: dict[str, Cost]) -> list[Row]:
    """Return the rows of one concurrency."""
    wall = {NAMES[0]: 1 / 2.5} if at_once == 64 else {}
    cpu = {NAMES[0]: 1 / 3} if at_once == 64 else {}
    return [
        *beside(
            f"time a request, {at_once} at once", costs["ours"].wall, {name: costs[name].wall for name in NAMES}, wall
        ),
        *beside(f"CPU a request, {at_once} at once", costs["ours"].cpu, {name: costs[name].cpu for name in NAMES}, cpu),
    ]


def ask(url: str, at_once: int, requests: int) -> None:
    """Ask with `complete_many`."""
    with Client(base_url=url, model="m", api_key=KEY) as client:
        batch = client.complete_many(["x"] * requests, concurrency=at_once, max_tokens=8)
    assert set(batch.texts) == set(SCRIPT.texts)


async def ask_officially(url: str, at_once: int, requests: int) -> None:
    """Ask with the official client, as many at once."""
    gate = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:

        async def one() -> str:
            async with gate:
                return (await client.completions.create(model="m", prompt="x", max_tokens=8)).choices[0].text

        assert set(await asyncio.gather(*(one() for _ in range(requests)))) == set(SCRIPT.texts)


async def ask_aiohttp(url: str, at_once: int, requests: int) -> None:
    """Ask with aiohttp."""
    gate = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:

        async def one() -> str:
            async with gate, session.post(f"{url}/completions", json={"model": "m", "prompt": "x"}) as response:
                return (await response.json())["choices"][0]["text"]

        assert set(await asyncio.gather(*(one() for _ in range(requests)))) == set(SCRIPT.texts)


def ask_barely(url: str, at_once: int, requests: int) -> None:
    """Ask over sockets in one loop: the floor, without HTTP's rules and without errors."""
    parts = urlsplit(url)
    body = b'{"model":"m","prompt":"x"}'
    asked = f"POST {parts.path}/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    selector, texts = selectors.DefaultSelector(), []
    left = requests - at_once
    for _ in range(at_once):
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.sendall(asked)
        selector.register(connection, selectors.EVENT_READ)
    while len(texts) < requests:
        for key, _ in selector.select():
            answer = key.fileobj.recv(65536)
            texts.append(json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["text"])
            if left > 0:
                left -= 1
                key.fileobj.sendall(asked)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    selector.close()
    assert set(texts) == set(SCRIPT.texts)
