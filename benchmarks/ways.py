"""Ways to read a stream: as bare bytes, as little as one can do, and with the clients that there are."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import httpx_sse
import msgspec
import openai
from script import Script

from completions_magic import Client
from completions_magic.events import EventDecoder
from completions_magic.views import FLUSH_SECONDS

KEY = "sk-benchmark-0123456789abcdefghijklmnop"
BODY = b'{"model":"m","prompt":"x","stream":true}'
END = b"0\r\n\r\n"


class Choice(msgspec.Struct):
    """A choice as the practical limit decodes it."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict | None = None


class Chunk(msgspec.Struct):
    """A chunk as the practical limit decodes it."""

    choices: list[Choice]
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""


decode = msgspec.json.Decoder(Chunk).decode


class Ways:
    """Each method reads one script from its start to its end and fails where the text is not the one that was sent."""

    def __init__(self, url: str, script: Script) -> None:
        self._url = url
        self._text = script.texts[0] if script.n == 1 else None
        self._n = script.n
        self._http = httpx.Client()
        self._openai = openai.OpenAI(base_url=url, api_key=KEY)
        self._keyless = Client(base_url=url, model="m")
        self._keyed = Client(base_url=url, model="m", api_key=KEY)

    def _check(self, pieces: list[str]) -> None:
        assert self._text is None or "".join(pieces) == self._text

    def _connect(self) -> socket.socket:
        parts = urlsplit(self._url)
        connection = socket.create_connection((parts.hostname, parts.port))
        head = f"POST {parts.path}/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        connection.sendall(head.encode() + BODY)
        return connection

    def raw(self) -> None:
        """Receive the bytes."""
        with self._connect() as connection:
            while not connection.recv(65536).endswith(END):
                pass

    def limit(self) -> None:
        """Receive, split at blank lines, decode into structs: no HTTP, no line ends, no errors."""
        rest, pieces, ended = b"", [], False
        with self._connect() as connection:
            while not ended:
                received = connection.recv(65536)
                *events, rest = (rest + received).split(b"\n\n")
                for event in events:
                    payload = event[event.index(b"data: ") + 6 :]
                    if payload != b"[DONE]":
                        pieces.append(decode(payload).choices[0].text)
                ended = rest.endswith(END)
        self._check(pieces)

    def stock(self) -> None:
        """Httpx as it comes, and our decoder of events."""
        pieces, decoder = [], EventDecoder()
        with self._http.stream("POST", f"{self._url}/completions", content=BODY) as response:
            for piece in response.iter_raw():
                pieces += [decode(one).choices[0].text for one in decoder.feed(piece) if one != b"[DONE]"]
        self._check(pieces)

    def sse(self) -> None:
        """Httpx-sse and json."""
        with httpx_sse.connect_sse(self._http, "POST", f"{self._url}/completions", content=BODY) as source:
            events = (event.data for event in source.iter_sse() if event.data != "[DONE]")
            self._check([json.loads(event)["choices"][0]["text"] for event in events])

    def official(self) -> None:
        """Read with the official client."""
        stream = self._openai.completions.create(model="m", prompt="x", stream=True)
        self._check([chunk.choices[0].text for chunk in stream])

    def litellm(self) -> None:
        """Read with litellm."""
        import litellm

        stream = litellm.text_completion(
            model="text-completion-openai/m", prompt="x", stream=True, api_base=self._url, api_key=KEY
        )
        self._check([chunk.choices[0].text or "" for chunk in stream])

    def _ours(self, client: Client, frame: float) -> None:
        stream = client.send(client.request("x", stream=True, n=self._n), frame=frame)
        self._check([chunk.choices[0].text for chunk in stream])

    def ours(self) -> None:
        """Read with this client."""
        self._ours(self._keyless, 0.0)

    def keyed(self) -> None:
        """Read with a key, which this client looks for in all that comes."""
        self._ours(self._keyed, 0.0)

    def framed(self) -> None:
        """Read as the magic does."""
        self._ours(self._keyless, FLUSH_SECONDS)


NAMES: dict[str, str] = {
    "raw": "the same bytes, received",
    "limit": "raw + split + decode",
    "stock": "stock httpx + the same decoder",
    "sse": "httpx-sse + json",
    "official": "openai",
}


def named(ways: Ways, names: list[str]) -> dict[str, Callable[[], None]]:
    """Return the methods of these names."""
    return {name: getattr(ways, name) for name in names}
