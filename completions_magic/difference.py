"""What differs: between two texts, word by word, and between two requests, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import shorten

WORDS = re.compile(r"\w+|\s+|[^\w\s]")
LONGEST = 20_000
"""Words: beyond it a comparison would take seconds, and the texts stand whole beside each other."""

GLANCE = 1000
"""Characters of a prompt that a first comparison looks at."""
MOST_FIELDS = 3


def compare(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Yield (what only the old text has, what only the new one has) and, with both the same, what they share."""
    from difflib import SequenceMatcher  # here, since few who load this use it

    before, after = WORDS.findall(old), WORDS.findall(new)
    if len(before) + len(after) > LONGEST:
        yield old, new
        return
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = "".join(before[a:b]), "".join(after[c:d])
        yield (gone, gone) if kind == "equal" else (gone, come)


def word_diff(old: str, new: str) -> str:
    """Return both texts as one: what went as [-went-], what came as {+came+}."""
    return "".join(
        gone if gone == come else (f"[-{gone}-]" if gone else "") + (f"{{+{come}+}}" if come else "")
        for gone, come in compare(old, new)
    )


def differing(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that are not the same in both."""
    # As JSON true is not 1.
    return [name for name in {**old, **new} if _written(old, name) != _written(new, name)]


def distance(new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[int, float]:
    """Return how far two requests are from each other: fields that differ, then how unlike the prompts are."""
    from difflib import SequenceMatcher

    prompts = [str(body.get("prompt", ""))[:GLANCE] for body in (new, old)]
    return len(differing(new, old)), -SequenceMatcher(None, prompts[0], prompts[1]).quick_ratio()


def in_words(new: Mapping[str, Any], old: Mapping[str, Any], then: str = "recorded") -> str:
    """Return which fields differ and how, the first three in full; `then` is what the old ones are called."""
    parts = []
    for name in differing(new, old):
        now, before = new.get(name), old.get(name)
        if isinstance(now, str) and isinstance(before, str):
            shown = _first_difference(now, before)
        else:
            shown = [_shown(body, name) for body in (new, old)]
        parts.append(f"{name} is {shown[0]}, {then} {shown[1]}")
    more = len(parts) - MOST_FIELDS
    return "; ".join(parts[:MOST_FIELDS]) + (f"; and {more} more" if more > 0 else "")


def _shown(body: Mapping[str, Any], name: str) -> str:
    return shorten(_written(body, name) or "not set", 60)


def _written(body: Mapping[str, Any], name: str) -> str | None:
    return json.dumps(body[name], ensure_ascii=False, default=repr) if name in body else None


def _first_difference(new: str, old: str) -> list[str]:
    """Return both texts from shortly before the place where they part."""
    at = next((at for at, (a, b) in enumerate(zip(new, old, strict=False)) if a != b), min(len(new), len(old)))
    start = max(0, at - 12) if at > 20 else 0
    return [repr(("…" if start else "") + shorten(text[start:], 40)) for text in (new, old)]
