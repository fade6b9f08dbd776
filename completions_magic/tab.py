"""Tab completion on the `%%complete` line: flags, then the values that are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult

from .options import BY_FLAG, CHOICES
from .profiles import known_profiles
from .schema import KNOBS
from .views import VIEWS

if TYPE_CHECKING:
    from .magics import Session


def match(context: CompletionContext, session: Session) -> SimpleMatcherResult:
    """Return what may stand at the cursor of a `%%complete` line; nothing elsewhere."""
    before = context.line_with_cursor[: context.cursor_position]
    words = before.split()
    fragment = "" if before[-1:].isspace() else words[-1]
    previous = words[-1] if not fragment else words[-2]
    found = [word for word in _known(fragment, previous, session) if word.startswith(fragment)]
    return {
        "completions": [SimpleCompletion(word, type="param") for word in found],
        "suppress": bool(found),
        "matched_fragment": fragment,
    }


def _known(fragment: str, previous: str, session: Session) -> Iterable[str]:
    option = BY_FLAG.get(previous)
    if option is None or option.value is None:
        return sorted(flag for flag in BY_FLAG if flag.startswith("--")) if fragment.startswith("-") else []
    names = [name for name in session.shell.user_ns if not name.startswith("_")]
    values: dict[str, Callable[[], Iterable[str]]] = {
        "form": lambda: CHOICES["form"],
        "record": lambda: CHOICES["record"],
        "cassette": lambda: sorted(str(path) for deep in ("*.jsonl", "*/*.jsonl") for path in Path().glob(deep)),
        "view": lambda: VIEWS,
        "profile": known_profiles,
        "model": session.known_models,
        "out": lambda: names,
    }
    if fragment.startswith("$"):
        return [f"${name}" for name in names]
    default = KNOBS[option.name].default if option.name in KNOBS else None
    if option.name not in values:
        return [] if default is None else [str(default)]
    # Only what stays one word on the line: names come from files and servers.
    return [word for word in values[option.name]() if re.fullmatch(r"[!-~]+", word)]
