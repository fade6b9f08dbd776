"""Whether asking for more rows is of no use, since the endpoint fails one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import CompletionsError, shorten
from .schema import Completion

ALIKE = ("auth", "not_found", "redirect", "tls")
"""Kinds of failures that every row would meet, whatever it asks."""
LOST = ("cassette",)
"""Kinds after which what is answered and paid for cannot be kept."""
LASTING = (*ALIKE, *LOST, "connect", "permission", "rate_limit")
"""Kinds that last when they come again and again; of all others the next row may know nothing."""
LONGEST_SAYING = 200


@dataclass
class CircuitBreaker:
    """Notices that an endpoint fails every row for a lasting reason; `reason` says which, and is empty until then.

    What every row would meet alike, such as a key that is not accepted or a model that is unknown, is enough once, as
    long as nothing was answered, and a journal that cannot be written always. Any lasting failure is when it has come
    `most` times without an answer in between, and no request is under way that later ones have overtaken: that one is
    being answered. A 400 is an answer here: it may be a row's own fault. Those who share one take turns.
    """

    most: int
    reason: str = ""
    answered: bool = False
    failures: int = 0
    _begun: int = field(default=0, init=False)
    _under_way: set[int] = field(default_factory=set, init=False)

    def begin(self) -> int:
        """Return the number of a request that begins."""
        self._begun += 1
        self._under_way.add(self._begun)
        return self._begun

    def end(self, number: int) -> None:
        """Note that a request has ended; `hear` is told what came of it, unless it was a replay."""
        self._under_way.discard(number)

    def hear(self, completion: Completion, failure: CompletionsError | None) -> None:
        """Count what came of a request."""
        if failure is not None and failure.kind in LASTING:
            self.failures += 1
            self.reason = self.reason or self._why(failure)
        elif completion.choices or (failure is not None and failure.kind == "bad_request"):
            self.failures = 0
            self.answered = self.answered or bool(completion.choices)

    def _why(self, failure: CompletionsError) -> str:
        said = shorten(failure.message, LONGEST_SAYING)
        if failure.kind in LOST or (failure.kind in ALIKE and not self.answered):
            return f"every row would fail alike: {said}"
        # Half of `most` are asked at a time: who began before so many others, and has not failed, has got further.
        is_overtaken = min(self._under_way, default=self._begun) <= self._begun - self.most
        if self.failures < self.most or is_overtaken:
            return ""
        return f"{self.failures} requests in a row have failed, the last: {said}"
