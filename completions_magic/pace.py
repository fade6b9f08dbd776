"""How fast many requests may go: together, not each for itself."""

from __future__ import annotations

import contextlib
import email.utils
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import httpx

from .errors import BudgetError, ConfigurationError

HEAR_SECONDS = 0.1
"""The longest wait in one piece: an interrupt that falls right before it is heard after it."""
LONGEST_HOLD = 60.0
"""Seconds: a longer rest is not waited for by everyone; those who ask meanwhile fail by themselves."""

waits: ContextVar[bool] = ContextVar("completions_magic_waits", default=True)
"""Whether what a failing endpoint asks to wait is waited for."""


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Retries of what is asked within this block happen at once: for tests of code that meets failing endpoints."""
    token = waits.set(False)
    try:
        yield
    finally:
        waits.reset(token)


class Pace:
    """Shared by all who ask one endpoint: a ceiling of requests a second, a common pause, and a budget.

    `max_rps` is requests a second; `tokens` and `requests` bound what is spent, counted as answers come, so that
    those under way when it is reached still end. What a cassette replays costs nothing. Thread-safe.
    Raises ConfigurationError for a rate at which nothing would ever be asked.
    """

    def __init__(self, *, max_rps: float | None = None, tokens: int | None = None, requests: int | None = None) -> None:
        if max_rps is not None and not max_rps > 0:
            raise ConfigurationError(f"max_rps takes a number above 0, not {max_rps}")
        self.tokens = 0
        self.requests = 0
        self.stopped = threading.Event()
        self.max_rps = max_rps
        self._gap = 0.0 if max_rps is None else 1 / max_rps
        self._most_tokens = tokens
        self._most_requests = requests
        self._next = 0.0
        self._lock = threading.Lock()

    def hold(self, seconds: float) -> None:
        """Let nobody ask for so long: the endpoint wants a rest. Within `no_waits` it gets none."""
        if not waits.get():
            return
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    @property
    def rest(self) -> float:
        """How many seconds nobody may ask from now on."""
        with self._lock:
            return max(0.0, self._next - time.monotonic())

    def turn(self) -> None:
        """Wait until the next request may go, raise BudgetError where none may, or once `stopped` is set."""
        with self._lock:
            spent = self._most_tokens is not None and self.tokens >= self._most_tokens
            if spent or (self._most_requests is not None and self.requests >= self._most_requests):
                raise BudgetError(f"the budget is spent: {self.requests:,} requests, {self.tokens:,} tokens")
            self.requests += 1
        while not self.stopped.is_set():
            with self._lock:
                left = self._next - time.monotonic()
                if left <= 0:
                    self._next = max(self._next, time.monotonic()) + self._gap
                    return
            self.stopped.wait(min(left, HEAR_SECONDS))
        raise BudgetError("stopped before it was asked")

    def spend(self, tokens: int) -> None:
        """Count the tokens of an answer."""
        with self._lock:
            self.tokens += tokens


class Paced(httpx.BaseTransport):
    """An httpx transport that sends at a pace; one refusal that asks for a wait slows all who share it."""

    def __init__(self, transport: httpx.BaseTransport, pace: Pace) -> None:
        self._transport = transport
        self._pace = pace

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the turn, then send the request; a look at the list of models waits for none and costs nothing."""
        if request.method == "POST":
            self._pace.turn()
        response = self._transport.handle_request(request)
        if response.status_code == 429:
            self._pace.hold(min(asked_wait(response.headers) or 0.0, LONGEST_HOLD))
        return response

    def close(self) -> None:
        """Close the transport behind."""
        self._transport.close()


def asked_wait(headers: httpx.Headers) -> float | None:
    """Return the wait that a server asks for, in seconds: `retry-after-ms`, or Retry-After in seconds or as a date."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(headers.get("retry-after-ms", "")) / 1000)
    with contextlib.suppress(ValueError, OverflowError):  # of a date, a time zone beyond all
        return _seconds(headers)
    return None


def _seconds(headers: httpx.Headers) -> float | None:
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
