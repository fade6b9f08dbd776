"""Which models an endpoint has whose names are near one that it does not know."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from .errors import CompletionsError, NotFoundError, nearest, shorten

MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
LISTS = " (%completions models lists"


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
                is_there = model in known
                self._hints[model] = "" if is_there else nearest(model, [n for n in known if not _is_named(n, words)])
            return self._hints[model]


def _is_named(name: str, words: str) -> bool:
    """Say whether `name` stands in a text, and not only as a part of another name."""
    return re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-]|[.:]\w)", words) is not None
