"""The record of a completion: inert text that reads the same in every front end and every saved file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .inert import inert, one_line

if TYPE_CHECKING:
    from .schema import Choice, Completion

REASONS = {
    "stop": "ended by itself or at a stop sequence",
    "length": "reached max_tokens",
    "content_filter": "cut by the server's content filter",
    "interrupted": "interrupted: incomplete",
    "stopped": "stopped: incomplete",
    "error": "failed: incomplete",
}

# In a <div> JupyterLab typesets "$5 and $6" as mathematics; a <pre> it leaves alone.
PRE = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;margin:0;padding:0"
FOOT = "opacity:.65;font-size:.85em;margin:.4em 0 0"


def record(completion: Completion) -> dict[str, str]:
    """Return the completion as text/plain and text/html; nothing in it depends on time or chance beyond the text."""
    return {"text/plain": plain(completion), "text/html": html(completion)}


def plain(completion: Completion) -> str:
    """Return the text of every choice and a footer, as plain text."""
    many = len(completion.choices) > 1
    parts = [
        (f"[{number}/{len(completion.choices)}] " if many else "") + inert(choice.text) + _aside(choice, many=many)
        for number, choice in enumerate(completion.choices, 1)
    ]
    return "\n".join([*parts, f"({footer(completion)})"])


def html(completion: Completion) -> str:
    """Return the text of every choice and a footer, as HTML that survives sanitising."""
    many = len(completion.choices) > 1
    rows = [f'<pre style="{PRE}">{escape(inert(choice.text))}</pre>' for choice in completion.choices]
    if many:
        rows = [
            f'<tr><td style="vertical-align:top;opacity:.65">{number}</td>'
            f'<td style="text-align:left">{row}</td>'
            f'<td style="vertical-align:top;text-align:left;opacity:.65">{escape(reason(choice))}</td></tr>'
            for number, (choice, row) in enumerate(zip(completion.choices, rows, strict=True), 1)
        ]
    body = f"<table>{''.join(rows)}</table>" if many else "".join(rows)
    return f'{body}<p style="{FOOT}">{escape(footer(completion))}</p>'


def _aside(choice: Choice, *, many: bool) -> str:
    return f"  <{reason(choice)}>" if many else ""


def reason(choice: Choice) -> str:
    """Return a choice's finish_reason in words."""
    return REASONS.get(choice.finish_reason or "", one_line(choice.finish_reason or "no finish_reason", 40))


def footer(completion: Completion) -> str:
    """Return one line: the model, the tokens, how it ended, and what the server left out."""
    parts = [one_line(completion.model, 60) or "model not named"]
    if completion.usage is not None:
        parts.append(_count(completion.usage.completion_tokens, "token"))
    reasons = list(dict.fromkeys(reason(choice) for choice in completion.choices))
    parts.append("; ".join(reasons) if reasons else "nothing arrived")
    asked = completion.request.choices if completion.request is not None else len(completion.choices)
    if len(completion.choices) != asked and completion.finished:
        parts.append(f"asked for {_count(asked, 'choice')}, got {len(completion.choices)}")
    return " · ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
