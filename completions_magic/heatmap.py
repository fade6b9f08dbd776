"""Tokens and their probabilities as tinted text: safe, static, and readable in any page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from .inert import inert

if TYPE_CHECKING:
    from .schema import Choice, Logprobs

SURPRISE = 8.0
"""The negative log-probability at which the tint is full: one in three thousand."""
LARGEST_EXPONENT = 700.0


def token_ends(text: str, logprobs: Logprobs, *, from_prompt: bool = False) -> list[int] | None:
    """Return where the first token begins and where each ends, or None where they do not make up the text.

    Tokens of a stop sequence, which the server has cut from the text, are empty at its end. `from_prompt` is true
    where the offsets count from the text's own start, whatever the first of them is.
    """
    tokens, offsets = logprobs.tokens, logprobs.text_offset
    if "".join(tokens).startswith(text):
        # Whatever the offsets say, these are the tokens of this text.
        ends = list(accumulate(map(len, tokens), initial=0))
    elif 0 < len(offsets) == len(tokens):
        first = 0 if from_prompt else offsets[0]
        ends = [*(max(0, offset - first) for offset in offsets), len(text)]
    else:
        return None
    return [min(end, len(text)) for end in accumulate(ends, max)]


def tinted(choice: Choice) -> str | None:
    """Return the choice's text as HTML with a tint and a tooltip a token, or None without usable log-probabilities."""
    logprobs = choice.logprobs
    if logprobs is None or not logprobs.tokens:
        return None
    ends = token_ends(choice.text, logprobs)
    if ends is None:
        return None
    parts = [
        f'<span title="{tooltip(logprobs, at)}" style="{tint(logprobs.token_logprobs, at)}">'
        f"{preformatted(_piece(choice.text, start, end))}</span>"
        for at, (start, end) in enumerate(pairwise(ends))
        if end > start
    ]
    return "".join(parts)


def _piece(text: str, start: int, end: int) -> str:
    # A line end may be two tokens: what is shown is one.
    split_line_end = text[end - 1 : end] == "\r" and text[end : end + 1] == "\n"
    return text[start : end - 1] if split_line_end else text[start:end]


def preformatted(text: str, *, first: bool = False) -> str:
    """Return `text` as inert HTML for a <pre>; `first` where it begins there.

    HTML drops a line end right after <pre>, and Markdown ends a table at an empty line: so the first is doubled
    and none is written as itself.
    """
    from html import escape  # here, since its table of entities is large, and a program shows no HTML

    shown = inert(text)
    return ("&#10;" if first and shown.startswith("\n") else "") + escape(shown).replace("\n", "&#10;")


def tint(scores: Sequence[float | None], at: int) -> str:
    """Return the style of a token: the more surprising it was, the warmer."""
    score = scores[at] if at < len(scores) else None
    strength = 0.0 if score is None or math.isnan(score) else min(1.0, max(0.0, -score) / SURPRISE)
    return f"background:rgba(230,110,30,{0.65 * strength:.2f})"


def tooltip(logprobs: Logprobs, at: int) -> str:
    """Return a token's probability and its alternatives, escaped, a line each."""
    from html import escape

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
    """Return a log-probability as a percentage with three significant digits."""
    if score is None or math.isnan(score):
        return "no probability"
    return f"{100 * math.exp(min(score, 0.0)):.3g}%"


def total(choice: Choice) -> tuple[float, float] | None:
    """Return the log-probability of the choice's tokens and their perplexity, exp of minus the mean."""
    scores = [score for score in (choice.logprobs.token_logprobs if choice.logprobs else []) if score is not None]
    if not scores:
        return None
    sum_ = math.fsum(scores)
    mean = -sum_ / len(scores)
    return sum_, math.exp(mean) if mean < LARGEST_EXPONENT else math.inf
