"""Whether the same came again: two answers to one cell, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .difference import in_words, word_diff
from .inert import inert, one_line
from .record import plain, provenance
from .schema import Completion

KINDS = ("identical", "other text", "request changed", "server drifted", "not recorded", "failed")


@dataclass(frozen=True)
class Answered:
    """What an output keeps of an answer: its plain text, and its provenance."""

    text: str
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, completion: Completion) -> Answered:
        """Return what the record of a completion keeps."""
        return cls(plain(completion), provenance(completion)["completions_magic"])


@dataclass(frozen=True)
class Verdict:
    """One of KINDS, and what differs."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return self.kind + (f": {inert(self.detail)}" if self.detail else "")


def judge(new: Answered, old: Answered | None) -> Verdict:
    """Say what became of an answer that was asked for again; `old` is what is known of the first."""
    if old is None:
        return Verdict("not recorded")
    now, then = new.provenance, old.provenance
    if now.get("request_sha256") != then.get("request_sha256"):
        changed = in_words(now.get("parameters") or {}, then.get("parameters") or {}, then="was")
        return Verdict("request changed", changed or "the prompt or the model")
    server = {name: (now.get(name), then.get(name)) for name in ("model", "system_fingerprint")}
    drifted = {name: pair for name, pair in server.items() if pair[0] != pair[1]}
    different = "" if new.text == old.text else word_diff(old.text, new.text)
    if drifted:
        names = [f"{name} is {one_line(str(a), 60)}, was {one_line(str(b), 60)}" for name, (a, b) in drifted.items()]
        return Verdict("server drifted", "; ".join([*names, different] if different else names))
    return Verdict("other text", different) if different else Verdict("identical")
