"""The embedded endpoint over HTTP, for other programs on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from waitress.server import create_server

from ..key import ApiKey
from .app import BODY_LIMIT, App
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
    return create_server(
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
