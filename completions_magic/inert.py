"""Text from a model, made safe to show: it stays text in a page, a terminal and a file."""

from __future__ import annotations

import re

# C0 and C1 controls drive terminals; U+061C, U+200E-U+200F, U+202A-U+202E and U+2066-U+2069 reorder what is read.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def inert(text: str) -> str:
    """Return `text` with controls as visible signs, and lone surrogates as U+FFFD; line ends and tabs stay."""
    return _UNSAFE.sub(_sign, text.replace("\r\n", "\n"))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"<U+{code:04X}>"


def one_line(text: str, limit: int = 200) -> str:
    """Return the inert `text` on one line of at most `limit` characters."""
    flat = " ".join(inert(text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
