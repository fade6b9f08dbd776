"""From the body of a cell to a prompt: `{{ name }}` is replaced, `{{fill}}` marks a hole, all else is verbatim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import PromptError, nearest, shorten

_NAME = r"[^\W\d]\w*"
_KEY = r"\"[^\"\n]*\"|'[^'\n]*'"
PATH = re.compile(rf"\{{\{{[ \t]*({_NAME}(?:\.{_NAME}|\[-?\d+\]|\[(?:{_KEY})\])*)[ \t]*\}}\}}")
BRACES = re.compile(r"\{\{[ \t]*([^{}\n]*?)[ \t]*\}\}")
STEP = re.compile(rf"\.({_NAME})|\[(-?\d+)\]|\[({_KEY})\]")
FILL = "fill"


def render(body: str, names: Mapping[str, Any], *, raw: bool = False) -> tuple[str, str | None]:
    """Return the prompt, and the suffix where the body has a hole.

    One pass: substituted values are never scanned again. Paths are names, attributes, whole-number indices and
    quoted keys; none begins with an underscore. Raises PromptError with near names for what does not exist.
    """
    if raw:
        return body, None
    parts: list[list[str]] = [[]]
    end = 0
    for match in PATH.finditer(body):
        parts[-1].append(body[end : match.start()])
        end = match.end()
        if match[1] == FILL:
            parts.append([])
        else:
            parts[-1].append(str(_look_up(match[1], names)))
    parts[-1].append(body[end:])
    if len(parts) > 2:
        raise PromptError("{{fill}} marks one hole, and there are " + str(len(parts) - 1))
    texts = ["".join(part) for part in parts]
    return texts[0], texts[1] if len(texts) == 2 else None


def names_in(body: str) -> set[str]:
    """Return the names that a body asks for."""
    return {re.match(_NAME, match[1])[0] for match in PATH.finditer(body)} - {FILL}  # type: ignore[index]  # as below


def literals_in(body: str) -> list[str]:
    """Return what stands in double braces and is no path, so that it is sent as it stands."""
    return [match[1] for match in BRACES.finditer(body) if PATH.fullmatch(match[0]) is None]


def _look_up(path: str, names: Mapping[str, Any]) -> Any:
    name = re.match(_NAME, path)[0]  # type: ignore[index]  # PATH has matched: a path begins with a name
    _check_public(name, path)
    if name not in names:
        hint = nearest(name, [known for known in names if not known.startswith("_")])
        raise PromptError(
            f"{{{{ {shorten(path, 60)} }}}}: there is no variable {name!r}{hint}; --raw sends braces as they stand"
        )
    value = names[name]
    for step in STEP.finditer(path, len(name)):
        value = _step(value, step, path)
    return value


def _step(value: Any, step: re.Match[str], path: str) -> Any:
    attribute, index, key = step.groups()
    if attribute is not None:
        _check_public(attribute, path)
    try:
        if attribute is not None:
            return getattr(value, attribute)
        return value[int(index)] if index is not None else value[key[1:-1]]
    except (AttributeError, LookupError, TypeError):
        known = (
            dir(value) if attribute is not None else [str(name) for name in value] if isinstance(value, Mapping) else []
        )
        hint = nearest(attribute or (key or "")[1:-1], [name for name in known if not name.startswith("_")])
        raise PromptError(f"{{{{ {shorten(path, 60)} }}}}: there is no {step[0]}{hint}") from None


def _check_public(name: str, path: str) -> None:
    if name.startswith("_"):
        raise PromptError(
            f"{{{{ {shorten(path, 60)} }}}}: names that begin with an underscore are not replaced; "
            "--raw sends braces as they stand"
        )
