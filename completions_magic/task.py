"""One run of the magic: what was asked, and how the answer is bound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .binding import convert, extract
from .client import Client
from .inert import inert
from .options import Options
from .schema import Completion, CompletionRequest


@dataclass
class Task:
    """One run of the magic: what was asked, and how the answer is to be bound."""

    options: Options
    request: CompletionRequest
    client: Client
    names: dict[str, Any]
    pattern: Any = None
    returns: bool = False

    @property
    def shows(self) -> bool:
        """Whether what came of a failure is to be shown: what the line returns IPython shows."""
        return not self.options.quiet and (self.options.raise_error or not self.returns)

    def bind(self, completion: Completion) -> Any:
        """Bind the completion as the options say; return what `-o` takes. Raises ConversionError."""
        if self.options.out is not None:
            self.names[self.options.out] = completion
        value = convert(completion, self.options.form or "completion")
        if self.options.out is not None:
            self.names[self.options.out] = value
        if self.pattern is not None:
            self.names.update(extract(completion, self.pattern))
        return value

    def keep(self, partial: Completion) -> None:
        """Bind what had arrived of an answer that did not end; a good variable is not replaced by an empty one."""
        out = self.options.out
        if out is not None and (any(partial.texts) or out not in self.names):
            self.names[out] = partial


class DryRun:
    """A request that was not sent; shows what would go over the wire, without the key."""

    def __init__(self, client: Client, request: CompletionRequest) -> None:
        self.request = request
        self._client = client

    def __repr__(self) -> str:
        body = json.dumps(self.request.body(), ensure_ascii=False, indent=2)
        return inert(f"{self._client.endpoint.describe_post()}\n\n{body}")
