"""Tokens and their probabilities as tinted text: safe, static, and readable in any page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from .inert import inert

if TYPE_CHECKING:
    from .schema import Choice, Logprobs

SURPRISE = 8.0
"""The negative log-probability at which the tint is full: one in three thousand."""


def token_spans(choice: Choice) -> list[tuple[int, int]] | None:
    """Return where each token begins and ends in the choice's text; None where the server's offsets do not fit it."""
    logprobs = choice.logprobs
    if logprobs is None or not logprobs.tokens:
        return None
    count = len(logprobs.tokens)
    if "".join(logprobs.tokens) == choice.text:
        # Whatever the offsets say, these are the tokens of this text.
        ends = [0]
        for token in logprobs.tokens:
            ends.append(ends[-1] + len(token))
    elif len(logprobs.text_offset) == count:
        ends = [offset - logprobs.text_offset[0] for offset in logprobs.text_offset] + [len(choice.text)]
    else:
        return None
    spans = list(pairwise(ends))
    return spans if all(0 <= start <= end <= len(choice.text) for start, end in spans) else None


def tinted(choice: Choice) -> str | None:
    """Return the choice's text as HTML with a tint and a tooltip a token, or None without usable log-probabilities."""
    spans, logprobs = token_spans(choice), choice.logprobs
    if spans is None or logprobs is None:
        return None
    parts = [
        f'<span title="{tooltip(logprobs, at)}" style="{tint(logprobs.token_logprobs, at)}">'
        f"{preformatted(choice.text[start:end], first=start == 0)}</span>"
        for at, (start, end) in enumerate(spans)
        if end > start
    ]
    return "".join(parts) + preformatted(choice.text[spans[-1][1] :])


def preformatted(text: str, *, first: bool = False) -> str:
    """Return `text` as inert HTML for a <pre>; `first` where it begins there.

    HTML drops a line end right after <pre>, and Markdown ends a table at an empty line: so the first is doubled
    and none is written as itself.
    """
    shown = inert(text)
    return ("&#10;" if first and shown.startswith("\n") else "") + escape(shown).replace("\n", "&#10;")


def tint(scores: Sequence[float | None], at: int) -> str:
    """Return the style of a token: the more surprising it was, the warmer."""
    score = scores[at] if at < len(scores) else None
    strength = 0.0 if score is None else min(1.0, max(0.0, -score) / SURPRISE)
    return f"background:rgba(230,110,30,{0.65 * strength:.2f})"


def tooltip(logprobs: Logprobs, at: int) -> str:
    """Return a token's probability and its alternatives, escaped, a line each."""
    score = logprobs.token_logprobs[at] if at < len(logprobs.token_logprobs) else None
    lines = [f"{visible(logprobs.tokens[at])}  {percent(score)}"]
    top = logprobs.top_logprobs[at] if at < len(logprobs.top_logprobs) else None
    for token, other in sorted((top or {}).items(), key=lambda pair: -pair[1]):
        if token != logprobs.tokens[at]:
            lines.append(f"{visible(token)}  {percent(other)}")
    return "&#10;".join(escape(line) for line in lines)


def visible(token: str) -> str:
    """Return a token on one line with its blanks and line ends visible."""
    return inert(token).replace(" ", "·").replace("\n", "↵").replace("\t", "⇥")


def percent(score: float | None) -> str:
    """Return a log-probability as a percentage with two significant digits."""
    return "no probability" if score is None else f"{100 * math.exp(min(score, 0.0)):.2g}%"


def total(choice: Choice) -> tuple[float, float] | None:
    """Return the log-probability of the choice's tokens and their perplexity, exp of minus the mean."""
    scores = [score for score in (choice.logprobs.token_logprobs if choice.logprobs else []) if score is not None]
    return (math.fsum(scores), math.exp(-math.fsum(scores) / len(scores))) if scores else None
