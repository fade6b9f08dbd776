"""What the scripted server sends: the texts, the events and the framing, as the path of a base URL says."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, fields
from functools import cached_property

WORDS = ["the", "old", "keeper", "looked", "at", "sea", "and", "wrote", "a", "letter", "to", "moon", "about", "boats"]
ODD = [
    "\u2028",
    "é",
    "漢字",
    "😀",
    "\u0085",
    "a\nb",
    "\r\n",
    '"\\',
    "data: x\n\n",
    "[DONE]",
    "\u00a0",
    "e\u0301",
    "👩‍👩‍👧",
]
ENDS = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}


@dataclass(frozen=True)
class Script:
    """One answer: how many chunks, framed how, how fast.

    `framing` is `event` (an HTTP chunk an event), `cut` (HTTP chunks of any size), `many` (64 events a chunk) or
    `close` (no HTTP chunks, the connection ends). `rate` is events a second, 0 all at once; `delay` is milliseconds
    before the head. `odd` texts hold line ends, separators and wide characters; `more` adds fields that the API does
    not name.
    """

    framing: str = "event"
    chunks: int = 20
    rate: int = 0
    n: int = 1
    logprobs: int = 0
    delay: int = 0
    ends: str = "lf"
    odd: int = 0
    more: int = 0

    @property
    def path(self) -> str:
        """The script as a base URL's path."""
        named = (f"{field.name}-{getattr(self, field.name)}" for field in fields(self))
        return f"/{','.join(named)}/v1"

    @classmethod
    def parse(cls, path: str) -> Script:
        """Return the script that a path names."""
        words = dict(part.split("-") for part in path.split("/")[1].split(","))
        return cls(**{name: value if name in ("framing", "ends") else int(value) for name, value in words.items()})

    def text(self, at: int) -> str:
        """Return the text of the `at`-th chunk."""
        return ODD[at * 7 % len(ODD)] if self.odd and at % 2 else f" {WORDS[at * 7 % len(WORDS)]}"

    @cached_property
    def texts(self) -> list[str]:
        """The whole text of every choice."""
        each = ["".join(self.text(at) for at in range(start, self.chunks, self.n)) for start in range(self.n)]
        return each if self.chunks else []

    def payload(self, at: int) -> bytes:
        """Return the JSON of the `at`-th chunk."""
        text = self.text(at)
        choice = {"text": text, "index": at % self.n, "logprobs": None, "finish_reason": None}
        if self.logprobs:
            top = {f"{word}{rank}": -1.25 - rank for rank, word in enumerate(WORDS[: self.logprobs])}
            choice["logprobs"] = {
                "tokens": [text],
                "token_logprobs": [-0.7334],
                "top_logprobs": [{text: -0.7334, **top}],
                "text_offset": [at * 5],
            }
        if self.more:
            choice |= {"stop_reason": None, "token_ids": None}
        if at >= self.chunks - self.n:
            choice["finish_reason"] = "length"
        answer = {"id": "cmpl-7a1f", "object": "text_completion", "created": 1790000000, "model": "m"}
        answer |= {"choices": [choice], **({"usage": None} if self.more else {})}
        return json.dumps(answer, ensure_ascii=bool(self.odd)).encode()

    @cached_property
    def events(self) -> list[bytes]:
        """Every event, the last one `[DONE]`."""
        end = ENDS[self.ends].encode() * 2
        return [b"data: " + payload + end for payload in (*map(self.payload, range(self.chunks)), b"[DONE]")]

    @cached_property
    def pieces(self) -> list[bytes]:
        """The body of the answer in the pieces that are sent."""
        if self.framing == "close":
            return self.events
        if self.framing == "event":
            return [*map(chunked, self.events), b"0\r\n\r\n"]
        if self.framing == "many":
            groups = [b"".join(self.events[at : at + 64]) for at in range(0, len(self.events), 64)]
            return [*map(chunked, groups), b"0\r\n\r\n"]
        body, cuts, at = b"".join(self.events), random.Random(7), 0
        pieces = []
        while at < len(body):
            size = cuts.randint(1, 400)
            pieces.append(chunked(body[at : at + size]))
            at += size
        return [*pieces, b"0\r\n\r\n"]

    @property
    def head(self) -> bytes:
        """The head of a streamed answer."""
        framed = "Connection: close" if self.framing == "close" else "Transfer-Encoding: chunked"
        return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framed}\r\n\r\n".encode()

    @cached_property
    def stream(self) -> bytes:
        """The whole streamed answer."""
        return self.head + b"".join(self.pieces)

    @cached_property
    def whole(self) -> bytes:
        """The whole answer that is not streamed."""
        choices = [
            {"text": text, "index": at, "logprobs": None, "finish_reason": "length"}
            for at, text in enumerate(self.texts)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": self.chunks, "total_tokens": self.chunks + 3}
        answer = {"id": "cmpl-7a1f", "object": "text_completion", "created": 1790000000, "model": "m"}
        body = json.dumps({**answer, "choices": choices, "usage": usage}).encode()
        return (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )


def chunked(content: bytes) -> bytes:
    """Return one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(content), content)
