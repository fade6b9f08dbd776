"""The capability card of an endpoint: what it honours of the API, found by asking it, and kept for later lines."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from .inert import inert, one_line
from .profiles import user_folder
from .record import FOOT, code, count, tr
from .schema import CompletionRequest

Verdict = Literal["honoured", "ignored", "refused", "failed", "unclear"]
MARKS: Mapping[Verdict, str] = {"honoured": "✓", "ignored": "✗", "refused": "✗", "failed": "✗", "unclear": "?"}
DETAIL_LIMIT = 120

PROMPTS = "a list of prompts"
STOP = "stop as text"
STOPS = "stop as a list"
ECHO_LOGPROBS = "echo with logprobs"
IN_STREAMS = " in streams"
STREAM_USAGE = "usage in streams"
STREAM_ECHO = "echo in streams"
STREAM_LOGPROBS = "logprobs in streams"


class Finding(msgspec.Struct, frozen=True):
    """One line of a card: what was asked for, what became of it, and how that shows."""

    name: str
    verdict: Verdict
    detail: str = ""


class Card(msgspec.Struct, kw_only=True):
    """What the endpoint at `base_url` honoured on a day: `findings`, and what that took."""

    endpoint: str
    base_url: str
    model: str = ""
    date: str
    requests: int = 0
    tokens: int = 0
    findings: list[Finding]

    def __getitem__(self, name: str) -> Finding:
        """Return the finding of that name; raise KeyError where there is none."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def ignores(self, request: CompletionRequest) -> list[str]:
        """Return what `request` uses and the endpoint was found to ignore, by the names on the card."""
        asked = {**request.parameters.to_dict(), "prompts": request.prompts}
        names = [line.name for line in self.findings if line.verdict == "ignored" and _uses(line.name, asked)]
        # What is ignored anyway need not be said of streams again.
        return [name for name in names if not name.endswith(IN_STREAMS) or name.removesuffix(IN_STREAMS) not in names]

    def keep(self) -> None:
        """Write the card into the user's configuration folder, in place of an older one; it is theirs alone."""
        path = _path(self.base_url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(stat.S_IRWXU)
        fresh = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)))
        fresh.replace(path)

    @classmethod
    def kept(cls, base_url: str) -> Card | None:
        """Return the card that was kept of this endpoint, or None."""
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(_path(base_url).read_bytes(), type=cls)
        return None

    def plain(self) -> str:
        """Return the card as plain text."""
        wide = max((len(line.name) for line in self.findings), default=0)
        lines = [
            f"{MARKS[line.verdict]} {line.name:<{wide}}  {line.verdict:<8}  {_detail(line)}".rstrip()
            for line in self.findings
        ]
        return "\n".join([self._head(), *lines, f"({self._foot()})"])

    def html(self) -> str:
        """Return the card as HTML that survives sanitising."""
        rows = "".join(_row(finding) for finding in self.findings)
        head = f'<p style="margin:0 0 .4em">{code(self._head())}</p>'
        return f'{head}<table>{rows}</table><p style="{FOOT}">{code(self._foot())}</p>'

    def _head(self) -> str:
        address = [] if self.base_url == self.endpoint else [self.base_url]
        return " · ".join(inert(part) for part in (self.endpoint, *address, one_line(self.model, 60)) if part)

    def _foot(self) -> str:
        honoured = sum(finding.verdict == "honoured" for finding in self.findings)
        cost = f"{count(self.requests, 'request')}, {count(self.tokens, 'generated token')}"
        return f"honours {honoured} of {len(self.findings)} · {cost} · {self.date}"

    def __repr__(self) -> str:
        return f"Card({one_line(self.endpoint, 60)!r}, {self._foot()!r})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.plain(), "text/html": self.html()}


def _row(line: Finding) -> str:
    # Blanks that do not break: in a narrow cell only what was found wraps.
    name, verdict = (text.replace(" ", "\u00a0") for text in (line.name, f"{MARKS[line.verdict]} {line.verdict}"))
    weight = "opacity:.75" if line.verdict == "honoured" else "font-weight:600"
    return tr("td", code(name), f'<span style="{weight}">{code(verdict)}</span>', code(_detail(line)))


def _detail(line: Finding) -> str:
    return one_line(line.detail, DETAIL_LIMIT)


def _uses(name: str, asked: Mapping[str, Any]) -> bool:
    """Say whether what a card calls `name` is among the parameters that were asked."""
    ways: dict[str, Callable[[], bool]] = {
        "n": lambda: asked.get("n", 1) > 1,
        PROMPTS: lambda: asked["prompts"] > 1,
        STOP: lambda: isinstance(asked.get("stop"), str),
        STOPS: lambda: isinstance(asked.get("stop"), list),
        "echo": lambda: asked.get("echo") is True,
        ECHO_LOGPROBS: lambda: asked.get("echo") is True and "logprobs" in asked,
        STREAM_ECHO: lambda: asked.get("stream") is True and asked.get("echo") is True,
        STREAM_LOGPROBS: lambda: asked.get("stream") is True and "logprobs" in asked,
        STREAM_USAGE: lambda: bool(asked.get("stream_options", {}).get("include_usage")),
        "stream": lambda: False,  # it is asked for by itself, and an answer in one piece is a right one
    }
    return ways.get(name, lambda: name in asked)()


def _path(base_url: str) -> Path:
    """Return the file of an endpoint's card: readable, and of its own for every base URL."""
    readable = re.sub(r"[^\w.-]+", "_", base_url)[:80]
    return user_folder() / "cards" / f"{readable}-{hashlib.sha256(base_url.encode()).hexdigest()[:8]}.json"
