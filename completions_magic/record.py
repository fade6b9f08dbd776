"""The record of a completion: inert text that reads the same in every front end and every saved file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from .heatmap import preformatted, tinted, total
from .inert import inert, one_line

if TYPE_CHECKING:
    from .schema import Choice, Completion

REASONS = {
    "stop": "complete",
    "length": "reached max_tokens",
    "content_filter": "cut by the server's content filter",
    "interrupted": "interrupted: incomplete",
    "stopped": "stopped: incomplete",
    "error": "failed: incomplete",
}

# In a <div> or a <p> JupyterLab typesets "$5 and $6" as mathematics; <pre> and <code> it leaves alone.
PRE = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;margin:0;padding:0;background:none"
CODE = "font:inherit;color:inherit;background:none;padding:0"
CELL = "vertical-align:top;text-align:left"
ASIDE = "vertical-align:top;text-align:left;opacity:.7"
FOOT = "opacity:.7;font-size:.85em;margin:.4em 0 0"


def record(completion: Completion) -> dict[str, str]:
    """Return the completion as text/plain and text/html; nothing in it depends on time or chance beyond the text."""
    return {"text/plain": plain(completion), "text/html": html(completion)}


def provenance(completion: Completion) -> dict[str, Any]:
    """Return what an output's metadata keeps: the request's hash and parameters, the model, its fingerprint."""
    kept: dict[str, Any] = {"model": completion.model, "system_fingerprint": completion.system_fingerprint}
    if completion.request is not None:
        kept["request_sha256"] = hashlib.sha256(completion.request.encode()).hexdigest()
        kept["parameters"] = {**completion.request.parameters.to_dict(), **completion.request.extra}
    return {"completions_magic": kept}


def plain(completion: Completion) -> str:
    """Return the text of every choice and a footer, as plain text."""
    count = len(completion.choices)
    parts = [inert(choice.text) for choice in completion.choices]
    if count > 1:
        parts = [
            f"[{label}] {text}  <{reason(choice)}>"
            for label, text, choice in zip(labels(completion), parts, completion.choices, strict=True)
        ]
    return "\n".join([*parts, f"({footer(completion)})"])


def html(completion: Completion) -> str:
    """Return the text of every choice and a footer, as HTML that survives sanitising."""
    texts = [f'<pre style="{PRE}">{_body(completion, choice)}</pre>' for choice in completion.choices]
    if len(texts) > 1:
        rows = [
            f'<tr><td style="{ASIDE}">{label}</td><td style="text-align:left">{text}</td>'
            f'<td style="{ASIDE}">{code(reason(choice))}</td></tr>'
            for label, text, choice in zip(labels(completion), texts, completion.choices, strict=True)
        ]
        texts = [f"<table>{''.join(rows)}</table>"]
    return f'{"".join(texts)}<p style="{FOOT}">{code(footer(completion))}</p>'


def labels(completion: Completion) -> list[str]:
    """Return what the choices are called: numbers, or prompt and number where there were several prompts."""
    request, count = completion.request, len(completion.choices)
    prompts = 1 if request is None or len(completion.choices) != request.choices else request.prompts
    each = count // prompts
    if prompts == 1:
        return [f"{number + 1}/{count}" for number in range(count)]
    return [
        f"prompt {number // each + 1}" + (f" · {number % each + 1}/{each}" if each > 1 else "")
        for number in range(count)
    ]


def _body(completion: Completion, choice: Choice) -> str:
    shown = tinted(choice)
    if shown is not None:
        return shown
    prompt = completion.request.prompt if completion.request is not None else None
    echoed = completion.request is not None and completion.request.parameters.to_dict().get("echo") is True
    if echoed and isinstance(prompt, str) and prompt and choice.text.startswith(prompt):
        said = f'<span style="opacity:.55">{preformatted(prompt)}</span>'
        return said + preformatted(choice.text[len(prompt) :])
    return preformatted(choice.text, first=True)


def reason(choice: Choice) -> str:
    """Return a choice's finish_reason in words."""
    if choice.finish_reason in ("stop", "length") and not choice.text:
        return "empty answer"
    return in_words(choice.finish_reason)


def in_words(finish_reason: str | None) -> str:
    """Return a finish_reason as a person says it."""
    return REASONS.get(finish_reason or "", one_line(finish_reason or "no finish_reason", 40))


def footer(completion: Completion) -> str:
    """Return one line: the model, the tokens, how it ended, and what the server left out."""
    parts = [one_line(completion.model, 60) or "model not named"]
    tokens = None if completion.usage is None else completion.usage.completion_tokens
    if tokens or (tokens == 0 and not any(completion.texts)):  # some servers write zeros into every chunk
        parts.append(count(tokens, "token"))
    if len(completion.choices) < 2:
        parts.append(reason(completion.choices[0]) if completion.choices else "nothing arrived")
        parts += _scores(completion)
    asked = completion.request.choices if completion.request is not None else len(completion.choices)
    if len(completion.choices) != asked and completion.finished:
        parts.append(f"asked for {count(asked, 'choice')}, got {len(completion.choices)}")
    return " · ".join(parts)


def _scores(completion: Completion) -> list[str]:
    scored = total(completion.choices[0]) if completion.choices else None
    if scored is None:
        return []
    # vLLM's word for it, and the embedded endpoint's: the model's own, before temperature and the rest.
    known = completion.extra.get("logprobs_mode") == "raw_logprobs"
    when = ", before temperature" if known else ""
    return [f"log-probability {scored[0]:.2f}{when}", f"perplexity {scored[1]:.2f}"]


def count(number: int, noun: str) -> str:
    """Return a number and what it counts."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def code(text: str) -> str:
    """Return a short text as HTML that no front end takes for mathematics."""
    return f'<code style="{CODE}">{preformatted(text)}</code>'


def tr(kind: str, *cells: str) -> str:
    """Return a table's row of `th` or `td` cells, each HTML."""
    opened = f'<{kind} style="{CELL}">'
    return "<tr>" + "".join(f"{opened}{cell}</{kind}>" for cell in cells) + "</tr>"
