"""What temperature would do: the distribution of a token, and sliders that reweigh it without a new request."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .heatmap import preformatted, visible
from .inert import inert, one_line
from .record import CODE, FOOT, provenance
from .reweighting import LARGEST_VOCABULARY, Interval, Listed, Reweighed, Sampling, reweigh
from .slot import Slot, script, style

if TYPE_CHECKING:
    from .schema import Choice, Completion, CompletionRequest, Logprobs

ROWS = 12
"""Tokens in the static record; those after them share a row."""
BAR = 16
COLUMN = BAR + 15
WIDTH = 120
SCALES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The probabilities that a full bar may stand for."""
TO = "\u2013"
LABEL = 18
AT_ONCE = 4000
"""Listed tokens that go to the page at once; those of further places go when a person looks there."""
PROMPT_SHOWN = 300
AS_GIVEN = Sampling()
ASK = "ask for log-probabilities with --logprobs 20"
MODES = {
    "raw_logprobs": "Log-probabilities from before the temperature, as the server says.",
    "processed_logprobs": "The server's log-probabilities are from after its own parameters; these here come on top.",
}
UNSAID = "Taken as from before the temperature: the server does not say whether its log-probabilities are."
ORDER = "In this order: temperature, min_p, top_k, top_p."
IGNORED = ("presence_penalty", "frequency_penalty", "logit_bias")
CELL = "text-align:left;padding:1px 10px 1px 0;white-space:nowrap"
Columns = list[tuple[tuple[str, str], Reweighed]]
"""Two lines of heading, and the distribution."""
Rows = list[tuple[str, list[Interval], bool]]
"""A label, a share a column, and whether this token was chosen."""
SOLID, MAYBE = "rgba(25,118,210,.55)", "rgba(25,118,210,.22)"


class DistributionView(Slot):
    """Shows which tokens could have stood at place `token` of a choice, and what sampling parameters make of them.

    Nothing is asked: the listed log-probabilities are reweighed, and what is not known of the other tokens is shown as
    an interval, for which the model knows at most `vocabulary` tokens, 262,144 where you do not say. The output is a
    static table of the distribution as it was asked for and as the model gave it. Raises ConfigurationError where no
    alternatives are known.
    """

    kind = "distribution"
    _esm = script("token.js", "reweighting.js", "distribution.js")
    _css = style("distribution.css")

    def __init__(self, completion: Completion, choice: int = 0, token: int = 0, vocabulary: int | None = None) -> None:
        self._completion = completion
        self._choice = _nth(completion.choices, choice, "choice", "the completion")
        self._logprobs = _scored(self._choice)
        self._at: int = _nth(range(len(self._logprobs.tokens)), token, "token", "the choice")
        self._vocabulary = LARGEST_VOCABULARY if vocabulary is None else max(1, vocabulary)
        listed = self._listed(self._at)
        if listed is None:
            raise ConfigurationError(f"no alternatives are known at token {self._at}: {ASK}")
        self.listed = listed
        self.asked = _asked(completion)
        """The sampling parameters of the request; None where the server has applied them already."""
        request = completion.request
        subject = b"" if request is None else request.encode()
        super().__init__(subject + f" {choice} {token} {self._vocabulary}".encode(), **self._fixed(), **self._places())
        self.on_msg(self._hear)

    def reweigh(self, sampling: Sampling | None = None, /, **parameters: Any) -> Reweighed:
        """Return the distribution under other parameters: temperature, top_p, top_k, min_p."""
        return reweigh(self.listed, sampling, **parameters)

    def plain(self) -> str:
        """Return the table as plain text."""
        columns = self._columns()
        rows = self._rows(columns)
        scale = _scale(rows)
        heads = [["", *names] for names in zip(*(heading for heading, _ in columns), strict=True)]
        sums = [["", *lines] for lines in zip(*(_sums(column) for _, column in columns), strict=True)]
        shown = [
            [label[: LABEL - 1], *(f"{_bar(share, scale)} {_chance(share)}" for share in shares)]
            for label, shares, _ in rows
        ]
        table = [
            f"{first:<{LABEL}}{''.join(f'{cell:<{COLUMN}}' for cell in cells)}".rstrip()
            for first, *cells in [*heads, *shown, *sums]
        ]
        return "\n".join([self._title(), "", *table, "", *self._notes()])

    def html(self) -> str:
        """Return the table as HTML that survives sanitising."""
        columns = self._columns()
        rows = self._rows(columns)
        scale = _scale(rows)
        head = "".join(f'<th style="{CELL}" colspan="2">{_lines(heading)}</th>' for heading, _ in columns)
        body = "".join(
            f'<tr><td style="{CELL}">{_code(label, bold=is_chosen)}</td>'
            f"{''.join(_cells(share, scale) for share in shares)}</tr>"
            for label, shares, is_chosen in rows
        )
        foot = "".join(f'<td style="{CELL}" colspan="2">{_lines(_sums(column))}</td>' for _, column in columns)
        notes = f'<p style="{FOOT}">{_lines(self._notes())}</p>'
        table = f"<table><tr><th></th>{head}</tr>{body}<tr><td></td>{foot}</tr></table>"
        return f'<p style="margin:0 0 .4em">{_code(self._title())}</p>{table}{notes}'

    def metadata(self) -> dict[str, Any]:
        """Return the provenance of the answer."""
        return provenance(self._completion)

    def __repr__(self) -> str:
        return f"DistributionView({self._title()})"

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        match content:
            case {"look": int(at)} if 0 <= at < len(self._logprobs.tokens):
                self.put(**{f"place_{at}": self._place(at)})

    def _listed(self, at: int) -> Listed | None:
        return listed_at(self._logprobs, at, _count_asked(self._completion.request), self._vocabulary)

    def _fixed(self) -> dict[str, Any]:
        asked = None if self.asked in (None, AS_GIVEN) else vars(self.asked)
        return {
            "before": inert(_prompt(self._completion.request, self._choice)),
            "tokens": [inert(token) for token in self._logprobs.tokens],
            "at": self._at,
            "asked": asked,
            "vocabulary": self._vocabulary,
            "notes": [self._mode(), *self._ignored(), ORDER],
        }

    def _places(self) -> dict[str, Any]:
        """Return what goes to the page at once: this place, and as many of the others as are small together."""
        found = {f"place_{self._at}": self._place(self._at)}
        left = AT_ONCE
        for at in range(len(self._logprobs.tokens)):
            top = self._logprobs.top_logprobs[at] if at < len(self._logprobs.top_logprobs) else None
            left -= len(top or {}) + 1
            if left < 0:
                break
            found[f"place_{at}"] = self._place(at)
        return found

    def _place(self, at: int) -> dict[str, Any]:
        """Return a place as the page reads it; without log-probabilities where none are known."""
        listed = self._listed(at)
        if listed is None:
            return {"tokens": [], "logprobs": [], "likeliest": 0, "chosen": -1}
        tokens, chosen = list(listed.tokens), self._logprobs.tokens[at]
        return {
            "tokens": [inert(token) for token in tokens],
            "logprobs": list(listed.logprobs),
            "likeliest": listed.likeliest,
            "chosen": tokens.index(chosen) if chosen in tokens else -1,
        }

    def _columns(self) -> Columns:
        given = (("as the model gave it", str(AS_GIVEN)), reweigh(self.listed))
        if self.asked in (None, AS_GIVEN):
            return [given]
        return [(("as it was asked for", str(self.asked)), reweigh(self.listed, self.asked)), given]

    def _rows(self, columns: Columns) -> Rows:
        """Return what the static table shows: the likeliest tokens, the chosen one, and the rest in a row or two."""
        chosen = self._logprobs.tokens[self._at]
        tokens = self.listed.tokens
        shown = [at for at, token in enumerate(tokens) if at < ROWS or token == chosen]
        rows = [
            (
                f"{visible(tokens[at])}{' ◂' if tokens[at] == chosen else ''}",
                [column.shares[at] for _, column in columns],
                tokens[at] == chosen,
            )
            for at in shown
        ]
        more = [at for at in range(len(tokens)) if at not in shown]
        if more:
            rows.append((f"{len(more):,} more listed", [_together(column, more) for _, column in columns], False))
        if self.listed.outside:
            rows.append(("the other tokens", [column.others for _, column in columns], False))
        return rows

    def _title(self) -> str:
        before = _prompt(self._completion.request, self._choice) + "".join(self._logprobs.tokens[: self._at])
        after = f" after {one_line('…' * (len(before) > 40) + before[-40:], 60)!r}" if before else ""
        return (
            f"token {self._at + 1} of {len(self._logprobs.tokens)}{after}: {visible(self._logprobs.tokens[self._at])}"
        )

    def _notes(self) -> list[str]:
        return [_limits(self.listed), self._mode(), *self._ignored(), ORDER]

    def _mode(self) -> str:
        return MODES.get(str(self._completion.extra.get("logprobs_mode")), UNSAID)

    def _ignored(self) -> list[str]:
        request = self._completion.request
        used = [] if request is None else [name for name in IGNORED if request.parameters.to_dict().get(name)]
        return [f"Not applied here: {', '.join(used)} of the request."] if used else []


def listed_at(logprobs: Logprobs, at: int, asked: int | None, vocabulary: int = LARGEST_VOCABULARY) -> Listed | None:
    """Return what is listed at a place, or None where that does not begin with the likeliest tokens.

    A server adds the token that was drawn where it is none of the `asked` likeliest; that one is not counted as such.
    """
    top = logprobs.top_logprobs[at] if at < len(logprobs.top_logprobs) else None
    known = {token: score for token, score in (top or {}).items() if not math.isnan(score)}
    if not known or asked == 0:
        return None
    chosen = logprobs.tokens[at]
    score = logprobs.token_logprobs[at] if at < len(logprobs.token_logprobs) else None
    likeliest = len(known)
    if chosen in known and likeliest not in (1, asked) and known[chosen] <= min(known.values()):
        likeliest -= 1
    if chosen not in known and score is not None and not math.isnan(score):
        known[chosen] = min(score, *known.values())
    return Listed.of(known, likeliest=likeliest, vocabulary=vocabulary)


def _nth(items: Any, at: int, what: str, where: str) -> Any:
    if not -len(items) <= at < len(items):
        raise ConfigurationError(f"there is no {what} {at}: {where} has {len(items)}")
    return items[at]


def _scored(choice: Choice) -> Logprobs:
    if choice.logprobs is None or not choice.logprobs.tokens:
        raise ConfigurationError(f"the completion has no log-probabilities: {ASK}")
    return choice.logprobs


def _count_asked(request: CompletionRequest | None) -> int | None:
    count = None if request is None else request.parameters.to_dict().get("logprobs")
    return count if isinstance(count, int) else None


def _asked(completion: Completion) -> Sampling | None:
    """Return the request's sampling parameters, or None where they are in the log-probabilities already."""
    if str(completion.extra.get("logprobs_mode", "")).startswith("processed"):
        return None
    if completion.request is None:
        return AS_GIVEN
    sent = {**completion.request.parameters.to_dict(), **completion.request.extra}
    used = {name: sent[name] for name in ("temperature", "top_p", "top_k", "min_p") if _is_number(sent.get(name))}
    if used.get("top_k", 1) < 1:
        del used["top_k"]  # servers say 0 or -1 for off
    try:
        return Sampling(**used)
    except ConfigurationError:
        return AS_GIVEN  # what the server made of it, nobody knows


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _prompt(request: CompletionRequest | None, choice: Choice) -> str:
    if request is None or request.parameters.echo is True:
        return ""
    prompt: Any = request.prompt
    if isinstance(prompt, list) and request.prompts:
        each = max(1, request.choices // request.prompts)
        at = choice.index // each
        prompt = prompt[at] if at < len(prompt) else ""
    return prompt[-PROMPT_SHOWN:] if isinstance(prompt, str) else ""


def _limits(listed: Listed) -> str:
    """Say what is known of the tokens that are not listed."""
    if not listed.outside:
        return f"All {len(listed.tokens):,} tokens are listed: exact at every setting."
    least = visible(listed.tokens[listed.likeliest - 1])
    return (
        f"The other tokens hold {_chance((listed.outside, listed.outside))}, none of them more than {least}. How they "
        f"share it is not known: a range holds whatever it may be in a vocabulary of at most {listed.vocabulary:,}."
    )


def _together(column: Reweighed, places: list[int]) -> Interval:
    return (sum(column.shares[at][0] for at in places), min(1.0, sum(column.shares[at][1] for at in places)))


def _chance(share: Interval) -> str:
    low, high = (f"{100 * part:.1f}" for part in share)
    if share[1] == 0:
        return TO
    if low != high:
        return f"{low}{TO}{high}%"
    return "<0.1%" if high == "0.0" else f"{high}%"


def _scale(rows: Rows) -> float:
    """Return what a full bar stands for."""
    most = max(high for _, shares, _ in rows for _, high in shares)
    return next(scale for scale in SCALES if most <= scale or scale == SCALES[-1])


def _bar(share: Interval, scale: float) -> str:
    low, high = (round(BAR * min(1.0, part / scale)) for part in share)
    return f"{'█' * low + '░' * (high - low):<{BAR}}"


def _sums(found: Reweighed) -> tuple[str, str]:
    (few, many), (low, high) = found.left, found.entropy
    bits = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}{TO}{high:.2f}"
    left = f"{few:,}" if few == many else f"{few:,} or more"
    return f"{bits} bits of entropy", f"{left} token{'' if few == many == 1 else 's'} left"


def _code(text: str, *, bold: bool = False) -> str:
    shown = preformatted(text)
    return f'<code style="{CODE}">{f"<b>{shown}</b>" if bold else shown}</code>'


def _lines(texts: Iterable[str]) -> str:
    return "<br>".join(map(_code, texts))


def _cells(share: Interval, scale: float) -> str:
    low, high = (round(WIDTH * min(1.0, part / scale)) for part in share)
    bars = "".join(
        f'<span style="display:inline-block;width:{width}px;height:.8em;background:{color}"></span>'
        for width, color in ((low, SOLID), (high - low, MAYBE))
        if width
    )
    return f'<td style="{CELL};min-width:{WIDTH + 2}px">{bars}</td><td style="{CELL}">{escape(_chance(share))}</td>'
