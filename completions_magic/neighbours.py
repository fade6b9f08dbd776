"""Which models an endpoint has whose names are near one that it does not know."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence

from .errors import CompletionsError, NotFoundError, did_you_mean, shorten

MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
LISTS = " (%completions models lists"
MOST = 3
"""Near names in an error."""


class Neighbours:
    """Puts near names into the errors of models that an endpoint does not know; it is looked at once for each of them.

    Shared by all who ask the endpoint in a batch, from any thread.
    """

    def __init__(self) -> None:
        self._hints: dict[str, str] = {}
        self._lock = threading.Lock()

    def explain(self, error: NotFoundError, model: str, look: Callable[[], list[str]]) -> None:
        """Name the model, and names near it, in a refusal that is about the model rather than about the route.

        `look` returns the models that there are; where it raises a CompletionsError nothing is near.
        """
        said, lists, more = error.message.rpartition(LISTS)
        words = said.partition(" answered 404 ")[2]
        if ": an HTML page" in words or not (MODEL.search(words) or _is_named(model, words)):
            return
        named = "" if _is_named(model, words) else f": {shorten(model, 80)!r}"
        error.message = f"{said}{named}{self._hint(model, words, look)}{lists}{more}"

    def _hint(self, model: str, words: str, look: Callable[[], list[str]]) -> str:
        with self._lock:
            if model not in self._hints:
                try:
                    known = look()
                except CompletionsError:
                    known = []
                others = [] if model in known else [name for name in known if not _is_named(name, words)]
                self._hints[model] = did_you_mean(near(model, others))
            return self._hints[model]


def near(model: str, known: Sequence[str]) -> list[str]:
    """Return the names nearest to that of a model, in any case, with or without their organisations and tags."""
    from difflib import SequenceMatcher, get_close_matches  # here, since few who load this use it

    asked = _forms(model)
    forms = {form for name in known for form in _forms(name)}
    close = {form for one in asked for form in get_close_matches(one, forms, MOST)}

    def likeness(name: str) -> float:
        return max(SequenceMatcher(None, one, form).ratio() for one in asked for form in _forms(name))

    return sorted((name for name in known if close & _forms(name)), key=likeness, reverse=True)[:MOST]


def _forms(name: str) -> set[str]:
    """Return `organisation/name:tag` in small letters, whole, without the organisation, and without both."""
    whole = name.casefold()
    last = whole.rpartition("/")[2]
    return {whole, last, last.partition(":")[0]} - {""}


def _is_named(name: str, words: str) -> bool:
    """Say whether `name` stands in a text, and not only as a part of another name."""
    return re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-]|[.:]\w)", words) is not None
