"""A server faster than any client: everything it sends was made before; a process of its own, over bare sockets.

`python server.py` prints the port; it ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import cache
from typing import Any, Self

from script import Script

script_of = cache(Script.parse)


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def connection_made(self, transport: Any) -> None:
        """Note where to write."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer the request once it is whole."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._received = b""
        script = script_of(head.split(b" ", 2)[1].decode())
        answer = self._stream if b'"stream":true' in body.replace(b" ", b"") else self._whole
        if script.delay:
            self._loop.call_later(script.delay / 1000, answer, script)
        else:
            answer(script)

    def _whole(self, script: Script) -> None:
        self._transport.write(script.whole)

    def _stream(self, script: Script) -> None:
        if script.rate:
            self._transport.write(script.head)
            self._send(script, 0, self._loop.time())
        else:
            self._transport.write(script.stream)
            self._end(script)

    def _send(self, script: Script, at: int, start: float) -> None:
        """Send the `at`-th piece and those that are due already, each by itself."""
        while at < len(script.pieces) and start + at / script.rate <= self._loop.time():
            self._transport.write(script.pieces[at])
            at += 1
        if at < len(script.pieces):
            self._loop.call_at(start + at / script.rate, self._send, script, at, start)
        else:
            self._end(script)

    def _end(self, script: Script) -> None:
        if script.framing == "close":
            self._transport.close()


class Server:
    """The server in a process of its own, as a context; `url` is the base URL of a script."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def url(self, script: Script) -> str:
        """Return the base URL that answers so."""
        return f"http://127.0.0.1:{self.port}{script.path}"


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
