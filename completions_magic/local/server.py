"""The embedded endpoint over HTTP, for other programs on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from ..key import ApiKey
from .app import BODY_LIMIT, App, Refusal
from .guard import Guard
from .model import pocket

THREADS = 8
IDLE_SECONDS = 30


def make_server(host: str, port: int, *, key: ApiKey | None = None, aliases: Iterable[str] = ()) -> Any:
    """Return a bound WSGI server whose `run()` serves until `close()`; port 0 takes a free one.

    Raises OSError when the address is taken. Events leave as they are yielded, and generation ends when the
    client has gone.
    """
    pocket()  # learned before the first request, not while it waits
    hosts = [f"[{host}]" if ":" in host else host]
    server = create_server(
        Guard(App(aliases=aliases), key=key, hosts=hosts),
        host=host,
        port=port,
        threads=THREADS,
        send_bytes=1,
        channel_request_lookahead=1,
        channel_timeout=IDLE_SECONDS,
        max_request_body_size=BODY_LIMIT,
        ident="completions-magic",
    )
    server.channel_class = _Channel
    return server


class _ErrorAnswer(ErrorTask):
    """What waitress itself refuses, in the API's error shape."""

    def execute(self) -> None:
        error = self.request.error
        refusal = Refusal(error.code, error.body)
        body = msgspec.json.encode(refusal.body())
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json"), ("Connection", "close")]
        self.response_headers.append(("Content-Length", str(len(body))))
        self.close_on_finish = True
        self.write(body)  # type: ignore[no-untyped-call]  # waitress carries no types


class _Channel(HTTPChannel):
    error_task_class = _ErrorAnswer
