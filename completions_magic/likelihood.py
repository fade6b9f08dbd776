"""How likely a text is after another one: read off the log-probabilities of an echoed prompt."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .errors import ScoringError
from .schema import Choice, Logprobs

MEASURES = ("logprob", "per_token", "per_byte", "pmi")
"""By what the best of several texts is chosen."""
WANTED = "--score needs echo with the prompt's log-probabilities, as --profile local gives them"
BYTES = re.compile(rb"\\x([0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Likelihood:
    """How likely a text is after its context: the sum of its `tokens` tokens' natural logarithms; `bytes` of UTF-8."""

    logprob: float
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Echo:
    """A prompt as the model read it: where each token begins, in characters, and its log-probability.

    A token before the prompt's own, such as a mark of the beginning, has the place -1. `breaks` are the places
    between two characters at which a token begins.
    """

    starts: Sequence[int]
    logprobs: Sequence[float | None]
    breaks: frozenset[int]


def read_echo(choice: Choice, prompt: str, endpoint: str = "the endpoint") -> Echo:
    """Return the tokens of `prompt` from an answer to it with echo and logprobs; what was generated is cut off.

    Raises ScoringError where the answer has no log-probabilities of the prompt: several servers leave out one or the
    other without a word, and what is left would be worth no more than chance. Its `endpoint` is set where no other
    prompt would fare better.
    """
    if not choice.text.startswith(prompt):
        raise ScoringError(f"{endpoint} does not echo the prompt: {WANTED}", endpoint=endpoint)
    logprobs = _listed(choice.logprobs)
    if logprobs is None or not logprobs.tokens or len(logprobs.tokens) != len(logprobs.token_logprobs):
        raise ScoringError(f"{endpoint} gives no log-probabilities: {WANTED}", endpoint=endpoint)
    starts = _starts(prompt, logprobs)
    if starts is None:
        if len(logprobs.tokens) == 1 or len("".join(logprobs.tokens)) <= len(choice.text) - len(prompt):
            message = f"{endpoint} gives log-probabilities only of what it generates: {WANTED}"
            raise ScoringError(message, endpoint=endpoint)
        raise ScoringError(f"{endpoint} gives tokens that do not make up the prompt, so none can be counted")
    own = [at for at, start in enumerate(starts) if start < len(prompt)]
    read = [logprobs.token_logprobs[at] for at in own]
    if len(own) > 1 and not any(value is not None for value in read):
        raise ScoringError(
            f"{endpoint} gives the prompt's tokens without their log-probabilities: {WANTED}", endpoint=endpoint
        )
    return Echo([starts[at] for at in own], read, _breaks([logprobs.tokens[at] for at in own], starts, len(prompt)))


def likelihoods(context: str, candidates: Sequence[str], echoes: Sequence[Echo]) -> list[Likelihood]:
    """Return how likely each candidate is after `context`; `echoes` are of the context with each of them behind it.

    A token may span the end of the context: `a ` and `b` are read as `a` and ` b`. Then all candidates are counted
    from the last place at or before the end of the context where a token begins in each of them, so that every sum is
    over the same piece of the context and its candidate, and they can be compared. This piece counts in `tokens` and
    `bytes` too. Raises ScoringError where a token that counts has no log-probability, as the very first one has none.
    """
    shared = frozenset.intersection(*(echo.breaks for echo in echoes)) if echoes else frozenset()
    begin = max((place for place in shared if place <= len(context)), default=0)
    found = []
    for candidate, echo in zip(candidates, echoes, strict=True):
        counted = [value for start, value in zip(echo.starts, echo.logprobs, strict=True) if start >= begin]
        known = [value for value in counted if value is not None]
        if len(known) < len(counted) or not known:
            where = "the first token" if begin == 0 else "a token of the candidate"
            hint = ": the context must be longer than that" if begin == 0 else ""
            raise ScoringError(f"{where} has no log-probability{hint}")
        found.append(Likelihood(sum(known), len(known), len((context + candidate)[begin:].encode())))
    return found


def _listed(logprobs: Logprobs | None) -> Logprobs | None:
    """Return log-probabilities as four lists, those in the shape of chat completions too."""
    content: Any = None if logprobs is None else logprobs.extra.get("content")
    if logprobs is None or logprobs.tokens or not isinstance(content, list):
        return logprobs
    if not all(isinstance(entry, dict) and isinstance(entry.get("token"), str) for entry in content):
        return None
    values = [entry.get("logprob") for entry in content]
    numbers = [float(value) if isinstance(value, (int, float)) else None for value in values]
    return Logprobs([entry["token"] for entry in content], numbers)


def _starts(prompt: str, logprobs: Logprobs) -> list[int] | None:
    """Return where each token begins in the prompt, or None where they are not its tokens."""
    tokens, offsets = logprobs.tokens, logprobs.text_offset
    for skipped in (0, 1):
        # Where a server names the mark of the beginning, its offsets count that too, and the text does not have it.
        own = tokens[skipped:]
        if "".join(own).startswith(prompt):
            return [-1] * skipped + list(accumulate(map(len, own), initial=0))[:-1]
    if len(offsets) != len(tokens) or offsets[0] != 0 or offsets != sorted(offsets):
        return None
    ends = [*offsets[1:], max(len(prompt), offsets[-1])]
    for token, start, end in zip(tokens, offsets, ends, strict=True):
        if start < len(prompt) and not _broken(token) and prompt[start:end] != token[: len(prompt) - start]:
            return None
    return list(offsets)


def _broken(token: str) -> bool:
    """Say whether a token holds a part of a character: its bytes in hexadecimal, or the sign that stands for it."""
    return token.startswith("bytes:") or "\ufffd" in token


def _breaks(tokens: Sequence[str], starts: Sequence[int], length: int) -> frozenset[int]:
    """Return where tokens begin that do not begin within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    breaks = set()
    for token, start in zip(tokens, starts, strict=False):
        within = bool(decoder.getstate()[0])
        if not within and 0 <= start < length:
            breaks.add(start)
        raw = token.encode("utf-8", "replace")
        decoder.decode(BYTES.sub(lambda match: bytes.fromhex(match[1].decode()), raw.removeprefix(b"bytes:")))
    return frozenset(breaks)
