"""A key that shows itself to nobody but the request it is for."""

from __future__ import annotations

import hmac
import json
import re
from typing import NoReturn
from urllib.parse import quote

from .errors import ProfileError

MASK = "[key]"
PIECE = 10


class ApiKey:
    """Holds a key; its repr, str, format, JSON and copies show nothing, and pickling it raises TypeError.

    Blanks and line ends around the key are dropped. Raises ProfileError, without the key, when what is left
    cannot be sent in a header: blanks inside, smart quotes, anything beyond printable ASCII.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str, *, origin: str = "the key") -> None:
        value = value.strip()
        if not value:
            raise ProfileError(f"{origin} is empty")
        if not re.fullmatch(r"[!-~]+", value) or value[0] in "\"'":
            raise ProfileError(f"{origin} holds blanks, line ends, quotes or characters that no key has: copy it again")
        self.__value = value

    def reveal(self) -> str:
        """Return the key itself, for the Authorization header and nothing else."""
        return self.__value

    def scrub(self, text: str) -> str:
        """Return `text` with the key, and every piece of ten or more of its characters, masked."""
        spellings = {self.__value, quote(self.__value, safe=""), json.dumps(self.__value)[1:-1]}
        for spelling in sorted(spellings, key=len, reverse=True):
            text = text.replace(spelling, MASK)
        pieces = {
            spelling[start : start + PIECE] for spelling in spellings for start in range(len(spelling) - PIECE + 1)
        }
        return _mask_pieces(text, pieces)

    def is_in(self, content: bytes) -> bool:
        """Say whether the whole key occurs in `content`."""
        return self.__value.encode() in content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and hmac.compare_digest(self.__value, other.reveal())

    def __hash__(self) -> int:
        return hash(self.__value)

    def __repr__(self) -> str:
        return "ApiKey(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __copy__(self) -> ApiKey:
        return self

    def __deepcopy__(self, memo: object) -> ApiKey:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not pickled: each process reads its own")


def _mask_pieces(text: str, pieces: set[str]) -> str:
    hits = [start for start in range(len(text) - PIECE + 1) if text[start : start + PIECE] in pieces]
    parts: list[str] = []
    end = 0
    for start in hits:
        if start > end or not parts:
            parts += [text[end:start], MASK]
        end = start + PIECE
    return "".join(parts) + text[end:] if parts else text
