"""Where the time goes: a request and a chunk of a burst, layer by layer; what stands above is in what stands below."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpcore
import httpx
from rounds import rounds
from script import Script
from server import Server
from table import Row, micro
from ways import KEY, Ways

from completions_magic import Client
from completions_magic.answer import AnswerReader
from completions_magic.framing import ChunkJoiner
from completions_magic.schema import Growing
from completions_magic.transport import RECEIVE_BYTES, Watch, WatchedTransport, connect

REQUESTS = 300
CHUNKS = 20_000


def measure(server: Server) -> list[Row]:
    """Return the CPU of each layer, over what it costs to do nothing."""
    return [*request_layers(server), *chunk_layers(server)]


def listed(what: str, ways: dict[str, Callable[[], None]], count: int) -> list[Row]:
    """Return a row for each layer."""
    costs = rounds(ways, times=5, count=count)
    return [Row(f"{what}: {name}", micro(cost.cpu)) for name, cost in costs.items()]


def request_layers(server: Server) -> list[Row]:
    """Return what an unstreamed answer costs, on a kept connection, with a key."""
    client = Client(base_url=server.url(Script(chunks=1)), model="m", api_key=KEY)
    endpoint = client.endpoint
    request = client.request("x")
    body = request.encode()
    asked = endpoint.build("POST", "/completions", body)
    url = httpcore.URL(str(asked.url))
    origin = httpcore.Origin(b"http", b"127.0.0.1", server.port)
    connection = httpcore.HTTP11Connection(origin, connect("127.0.0.1", server.port))
    transport = WatchedTransport(ssl.create_default_context())

    def core() -> None:
        again = httpcore.Request(
            "POST", url, headers=asked.headers.raw, content=httpx.ByteStream(body), extensions=asked.extensions
        )
        read(connection.handle_request(again).stream)

    def read(stream: object) -> None:
        b"".join(stream)
        stream.close()

    def through_endpoint() -> None:
        watch = Watch(60)
        response = endpoint.open("POST", "/completions", watch, body)
        b"".join(endpoint.pieces(response, watch))
        response.close()

    layers: dict[str, Callable[[], None]] = {
        "h11 and httpcore's connection": core,
        "and kept connections, httpx's request and response": lambda: read(transport.handle_request(asked).stream),
        "and headers, failures, timeouts": through_endpoint,
        "and decoding, retries, Stop: Client.send": lambda: [None for _ in client.send(request)],
    }
    return listed("a request", {name: repeated(layer) for name, layer in layers.items()}, REQUESTS)


def repeated(layer: Callable[[], None]) -> Callable[[], None]:
    """Return what asks again and again."""
    return lambda: [layer() for _ in range(REQUESTS)]


def chunk_layers(server: Server) -> list[Row]:
    """Return what a burst costs, an HTTP chunk an event, without a key."""
    script = Script(chunks=CHUNKS)
    url = server.url(script)
    client = Client(base_url=url, model="m")
    sent = [script.stream[at : at + RECEIVE_BYTES] for at in range(0, len(script.stream), RECEIVE_BYTES)]
    body = client.request("x", stream=True).encode()

    def wire() -> list[bytes]:
        watch = Watch(60)
        response = client.endpoint.open("POST", "/completions", watch, body)
        pieces = list(client.endpoint.pieces(response, watch))
        response.close()
        return pieces

    pieces = wire()

    def join() -> None:
        joiner = ChunkJoiner()
        for received in sent:
            joiner.join(received)

    def decode() -> None:
        for _ in AnswerReader(choices=1).batches(pieces):
            pass

    def add_up() -> None:
        growing = Growing()
        for chunk in AnswerReader(choices=1).chunks(pieces):
            growing.add(chunk)

    layers: dict[str, Callable[[], None]] = {
        "HTTP chunks joined": join,
        "and h11, httpcore and httpx: the wire": wire,
        "beside the wire, events split and decoded": decode,
        "and added up": add_up,
        "all of it: Client.stream": Ways(url, script).ours,
    }
    return listed("a chunk", layers, CHUNKS)
