"""One fault: what a server sends, and what must come of it."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from completions_magic.errors import CompletionsError

KEY = "sk-Zq7Xw9Rt2Lm4Kp8V/Bd6Hs1Wf5Gj3Nc0+Ty8Ua"
"""Sent with every request of every case, so that every case shows whether it comes back."""

Script = bytes | Callable[[socket.socket], None]


@dataclass(frozen=True)
class Fault:
    """A server's behaviour and what must come of it: the exact texts, or an error and what had arrived before it.

    `scripts` answer the first, second, … request of a question, the last one all further ones; `heard` is how many
    requests a question may come to, and `words` must be in the error's one line. `address` is where it happens,
    `asks` are parameters of the request and `settings` those of the client; an answer that holds the key is not
    `recorded`.
    """

    name: str
    scripts: tuple[Script, ...]
    texts: tuple[str, ...] = ()
    error: type[CompletionsError] | None = None
    words: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    status: int | None = None
    heard: int | None = 1
    address: str = "server"
    asks: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    recorded: bool = True


def good(
    name: str,
    *scripts: Script,
    text: str | tuple[str, ...] = "Hello",
    heard: int = 1,
    recorded: bool = True,
    **asks: Any,
) -> Fault:
    """Return a case whose text comes, whatever is odd about it."""
    texts = (text,) if isinstance(text, str) else text
    return Fault(name, scripts, texts, heard=heard, asks=asks, recorded=recorded)


def bad(
    name: str,
    script: Script | None,
    error: type[CompletionsError],
    *words: str,
    partial: str | tuple[str, ...] = (),
    heard: int | None = 1,
    status: int | None = None,
    address: str = "server",
    asks: dict[str, Any] | None = None,
    **settings: Any,
) -> Fault:
    """Return a case that ends in an error, with what had arrived before it."""
    return Fault(
        name,
        () if script is None else (script,),
        error=error,
        words=words,
        partial=(partial,) if isinstance(partial, str) else partial,
        status=status,
        heard=heard,
        address=address,
        asks=asks or {},
        settings=settings,
    )
