"""A key that shows itself to nobody but the request it is for."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NoReturn
from urllib.parse import quote

from .errors import CompletionsError, ProfileError

MASK = "[key]"
PIECE = 10
BEGUN = 5
"""So many characters of a key at the end of a chunk wait for the next one: a text seldom has them by chance."""
BETWEEN = "\0"


def problem_of(value: str) -> str | None:
    """Return why `value` cannot be a key, without showing it, or None."""
    value = value.strip()
    if not value:
        return "is empty"
    if not re.fullmatch(r"[!-~]+", value) or value[0] in "\"'" or value[-1] in "\"'":
        return "holds blanks, line ends, quotes or characters that no key has: copy it again"
    return None


class ApiKey:
    """Holds a key; its repr, str, format, JSON and copies show nothing, and pickling it raises TypeError.

    Blanks and line ends around the key are dropped. Raises ProfileError, without the key, when what is left
    cannot be sent in a header: blanks inside, smart quotes, anything beyond printable ASCII.
    """

    __slots__ = ("__as_bytes", "__joined", "__pieces", "__spellings", "__traces", "__value", "__weakref__")

    def __init__(self, value: str, *, origin: str = "the key") -> None:
        problem = problem_of(value)
        if problem:
            del value  # a traceback may show what this frame holds
            raise ProfileError(f"{origin} {problem}")
        self.__value = value.strip()
        spellings = self.__spellings = frozenset(_spellings(self.__value))
        self.__joined = BETWEEN.join(spellings)
        self.__pieces = {
            spelling[start : start + PIECE] for spelling in spellings for start in range(len(spelling) - PIECE + 1)
        }
        half = PIECE // 2
        # A window of ten characters holds a whole one of the fives that begin at every fifth place.
        self.__traces = tuple(
            {spelling[at : at + half] for spelling in spellings for at in range(0, len(spelling) - half + 1, half)}
        )
        self.__as_bytes = tuple(trace.encode() for trace in self.__traces)

    def reveal(self) -> str:
        """Return the key itself, for the Authorization header and nothing else."""
        return self.__value

    @property
    def _is_placeholder(self) -> bool:
        # Local servers take any word as a key; one that short is no secret, and may be a part of any text.
        return len(self.__value) < PIECE

    def scrub(self, text: str) -> str:
        """Return `text` with the key, and every piece of ten or more of its characters, masked."""
        if not self.leaves_a_trace(text):
            return text
        for spelling in sorted(self.__spellings, key=len, reverse=True):
            text = text.replace(spelling, MASK)
        return _mask_pieces(text, self.__pieces)

    def scrub_all(self, value: Any) -> Any:
        """Return a decoded JSON `value` with every text in it scrubbed."""
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, dict):
            return {self.scrub(name): self.scrub_all(entry) for name, entry in value.items()}
        return [self.scrub_all(entry) for entry in value] if isinstance(value, list) else value

    def traces(self) -> tuple[bytes, ...]:
        """Return short byte strings of which at least one is in any bytes that show a piece of the key."""
        return () if self._is_placeholder else self.__as_bytes

    def leaves_a_trace(self, text: str) -> bool:
        """Say whether `text` may show a piece of the key; where it is false nothing of the key is in it."""
        return not self._is_placeholder and any(map(text.__contains__, self.__traces))

    def mask_on(self, before: str, text: str, *, more: bool) -> tuple[str, str]:
        """Return what of `text`, which follows `before`, can be shown, with pieces masked; and the end of it.

        For answers that come in chunks: where `more` may come, an end of five to nine characters of the key waits for
        it, so that of a key in tiny chunks four characters are shown.
        """
        if self._is_placeholder:
            return text, ""
        whole, end, hidden = self._look_at(before, text, more=more)
        return _shown(whole, len(whole) - len(text), end, hidden), whole[end:]

    def mask_tokens(self, before: str, tokens: Sequence[str], *, more: bool) -> list[str]:
        """Return what of `tokens`, which follow `before`, can be shown, with pieces masked that they spell together.

        Each is there, an empty one within a piece; where `more` may come the last ones are missing that wait for it.
        """
        if self._is_placeholder:
            return list(tokens)
        whole, end, hidden = self._look_at(before, "".join(tokens), more=more)
        ends = list(accumulate(map(len, tokens), initial=len(whole) - sum(map(len, tokens))))
        return [_shown(whole, start, stop, hidden) for start, stop in pairwise(ends) if stop <= end]

    def mask_names(self, names: Mapping[str, float], token: str) -> dict[str, float]:
        """Return the alternatives of a token that is masked, with itself and pieces of the key among them masked."""
        return {MASK if name == token or self._holds(name) else name: score for name, score in names.items()}

    def _look_at(self, before: str, text: str, *, more: bool) -> tuple[str, int, set[int]]:
        """Return a text behind the end of `before`, where what can be shown ends, and which characters are hidden.

        What stands before was shown or masked already: a piece that begins in it is masked from here on.
        """
        whole = before[1 - PIECE :] + text
        start, end = len(whole) - len(text), len(whole)
        hidden: set[int] = set()
        for at in range(len(whole) - PIECE + 1) if self.leaves_a_trace(whole) else ():
            if self._holds(whole[at : at + PIECE]):
                hidden.update(range(max(start, at), at + PIECE))
        if len(before) >= PIECE and self._holds(before[-PIECE:]):
            hidden.add(start - 1)
        if more and end - 1 not in hidden:
            longest = min(PIECE - 1, len(whole))
            begun = (length for length in range(longest, BEGUN - 1, -1) if self._holds(whole[-length:]))
            end = max(start, end - next(begun, 0))
        return whole, end, hidden

    def _holds(self, piece: str) -> bool:
        return piece in self.__joined

    def is_in(self, body: bytes) -> bool:
        """Say whether a text in a JSON body holds the whole key."""
        return not self._is_placeholder and json.dumps(self.__value)[1:-1].encode() in body

    def clean(self, error: CompletionsError) -> None:
        """Scrub an error's message, and let go of causes that show a piece of the key."""
        error.message = self.scrub(error.message)
        chain: BaseException | None = error
        while chain is not None:
            following = chain.__cause__ or chain.__context__
            if following is not None and self.scrub(f"{following} {following!r}") != f"{following} {following!r}":
                chain.__cause__ = chain.__context__ = None
                return
            chain = following

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


def _spellings(value: str) -> Iterator[str]:
    """Yield the key as it is, in URLs, in JSON, in HTML, and in base64 wherever in the coded text it stands."""
    from html import escape  # here, since who has no key needs no table of HTML's entities

    yield from (value, quote(value, safe=""), json.dumps(value)[1:-1], escape(value))
    for ahead in range(3):
        # Three bytes are four signs; those at the ends depend on what stands beside the key.
        coded = base64.b64encode(b"\0" * ahead + value.encode())
        inner = coded[(0, 2, 3)[ahead] : -4 if (ahead + len(value)) % 3 else None].decode()
        yield from (inner, inner.translate(str.maketrans("+/", "-_")))


def _shown(whole: str, start: int, end: int, hidden: set[int]) -> str:
    """Return this part of a text, each run of hidden characters that begins in it masked."""
    if not hidden:
        return whole[start:end]
    masks = (MASK if at - 1 not in hidden else "" for at in range(start, end))
    return "".join(mask if at in hidden else whole[at] for at, mask in enumerate(masks, start))


def _mask_pieces(text: str, pieces: set[str]) -> str:
    hits = [start for start in range(len(text) - PIECE + 1) if text[start : start + PIECE] in pieces]
    parts: list[str] = []
    end = 0
    for start in hits:
        if start > end or not parts:
            parts += [text[end:start], MASK]
        end = start + PIECE
    return "".join(parts) + text[end:] if parts else text
