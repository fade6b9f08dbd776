"""The embedded endpoint over HTTP, for other programs on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import BadRequest, RequestEntityTooLarge

from ..key import ApiKey
from .app import BODY_LIMIT, App, Refusal
from .guard import Guard
from .model import pocket

TURN = 0.0005
"""Seconds that a thread computes before another has its turn: the one that listens must not wait for all of them."""
UNSENT = 2**18
"""Bytes of a stream that wait for a client which does not read, and as many again that the system holds."""
CONTROL_LINE = 4096
"""Bytes that the line before an HTTP chunk, or the trailer after the last, may have."""


@dataclass(frozen=True)
class Limits:
    """How many may be connected at once, and how long each may take, in seconds."""

    connections: int = 400
    """A thread stands ready for each: idle it costs nothing, and nobody waits for the answers of others to end."""
    asking: float = 60
    """From the end of an answer, or from the beginning, to the last byte of the next request."""
    reading: float = 120
    """While something waits to be read and nothing is."""
    answer: float = 600


def make_server(
    host: str,
    port: int,
    *,
    key: ApiKey | None = None,
    aliases: Iterable[str] = (),
    allow_network: bool = False,
    limits: Limits | None = None,
) -> Any:
    """Return a bound WSGI server whose `run()` serves until `close()`; port 0 takes a free one.

    Raises OSError when the address is taken, and ValueError when other machines reach it without `allow_network`.
    Events leave as they are yielded, and generation ends when the client has gone.
    """
    if not allow_network:
        _check_loopback(host, port)
    pocket()  # learned before the first request, not while it waits
    hosts = [f"[{host}]" if ":" in host else host]
    guard = Guard(App(aliases=aliases), key=key, hosts=hosts, any_address=host in ("0.0.0.0", "::"))  # noqa: S104
    return _Server(guard, host, port, limits or Limits())


def _check_loopback(host: str, port: int) -> None:
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise ValueError(
                f"{host} lets other machines ask: say --allow-network if they may, "
                "and give them a key with --api-key-env"
            )


def _most_connections() -> float:
    """Return for how many connections the process may have descriptors: one each, and one for a large answer."""
    descriptors = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return descriptors // 2 if descriptors > 0 else math.inf


class _Server(TcpWSGIServer):
    def __init__(self, guard: Guard, host: str, port: int, limits: Limits) -> None:
        self.limits = limits
        self.channel_class = _Channel
        connections = min(limits.connections, _most_connections())
        super().__init__(
            guard,
            host=host,
            port=port,
            threads=connections,
            send_bytes=1,
            channel_request_lookahead=1,
            connection_limit=connections,
            cleanup_interval=1,
            max_request_body_size=BODY_LIMIT,
            outbuf_high_watermark=UNSENT,
            asyncore_use_poll=True,  # select() knows no descriptor above 1023
            ident="completions-magic",
        )
        listening: Any = self.socket
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT)

    def run(self) -> None:
        """Serve until `close()`, Ctrl-C or SIGTERM."""
        sys.setswitchinterval(TURN)
        super().run()

    def maintenance(self, now: float) -> None:
        """Hang up on clients that take too long."""
        for channel in self.active_channels.values():
            if channel.is_late(now, self.limits, full=self.in_connection_overflow):
                channel.will_close = True
                # A socket that cannot be written to would not come up for closing by itself.
                with contextlib.suppress(OSError):
                    channel.socket.shutdown(socket.SHUT_RDWR)


class _Parser(HTTPRequestParser):
    """Requests that two programs could read in two ways are refused, and so is what could only grow too large."""

    error: Any = None

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # an address without its bracket, a length of thousands of digits
            raise ParsingError("the address or the Content-Length is none") from None
        if self.proxy_netloc:  # a whole URL as the target: what it names counts, not Host
            self.headers["HOST"] = self.proxy_netloc
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("this endpoint speaks HTTP/1.1")
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("a body has a Content-Length or comes in chunks, not both")
        if "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("HTTP/1.0 has no chunks")

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.chunked and not self.completed:
            self._check_chunk()
        if self.completed:  # refused, or without a body: there is nothing to go on with
            self.expect_continue = False
        return consumed

    def _check_chunk(self) -> None:
        chunks: Any = self.body_rcv
        if chunks.chunk_remainder > BODY_LIMIT:
            self.error = RequestEntityTooLarge(f"exceeds max_body of {BODY_LIMIT}")
        elif len(chunks.control_line) + len(chunks.trailer) > CONTROL_LINE:
            self.error = BadRequest("a chunk's size, or the trailer, is too long")
        self.completed = self.error is not None


class _ErrorAnswer(ErrorTask):
    """What waitress itself refuses, in the API's error shape."""

    def execute(self) -> None:
        error = self.request.error
        # A coding that is not known is 501 to waitress; here it is one more mistake in a request.
        status, reason = (400, "Bad Request") if error.code == 501 else (error.code, error.reason)
        body = msgspec.json.encode(Refusal(status, error.body).body())
        self.status = f"{status} {reason}"
        self.response_headers = [("Content-Type", "application/json"), ("Connection", "close")]
        self.response_headers.append(("Content-Length", str(len(body))))
        self.close_on_finish = True
        self.write(body)


class _Channel(HTTPChannel):
    error_task_class = _ErrorAnswer
    parser_class = _Parser

    def __init__(self, server: _Server, *arguments: Any, **more: Any) -> None:
        super().__init__(server, *arguments, **more)
        self._began = self._wrote = time.time()

    def service(self) -> None:
        self._began = time.time()
        super().service()

    def write_soon(self, data: Any) -> int:
        self._wrote = time.time()
        written: int = super().write_soon(data)
        return written

    def is_late(self, now: float, limits: Limits, *, full: bool) -> bool:
        """Say whether the client, or its answer, has had its time.

        When no more connections fit, a client that asks nothing has a tenth of it.
        """
        if self.requests or self.total_outbufs_len:
            unread = now - max(self.last_activity, self._wrote) if self.total_outbufs_len else 0
            return now - self._began > limits.answer or unread > limits.reading
        return now - self._wrote > limits.asking * (0.1 if full else 1)
