"""How far many requests have come: a bar with count, rate, remaining time, failures and tokens."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from IPython.display import clear_output, display

from .batch import Row
from .client import Wait
from .errors import shorten

log = logging.getLogger("completions_magic")

FLUSH_SECONDS = 0.25
LOG_SECONDS = 10.0
SEEN_SECONDS = 1.0
"""So long a retry is shown at least."""


class Progress:
    """Counts the rows that have ended, in a live area, on a terminal's last line, or in the log; a context.

    `most` is how many there are, or None, of `what`; `kind` one of the views. A live area's button calls `on_stop`.
    """

    def __init__(self, most: int | None, kind: str, on_stop: Callable[[], None], *, what: str = "rows") -> None:
        self._most = most
        self._what = what
        self._kind = kind
        self._on_stop = on_stop
        self._done = self._failed = self._tokens = self._replayed = 0
        self._start = time.monotonic()
        self._wait: Wait | None = None
        self._until = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._area: Any = None
        self._ticker = threading.Thread(target=self._tick, name="completions-progress", daemon=True)

    def __enter__(self) -> Self:
        if self._kind == "widget":
            from .area import Area

            self._area = Area([], self._on_stop)
            self._show()
            reference = {"version_major": 2, "version_minor": 0, "model_id": self._area.model_id}
            display({"application/vnd.jupyter.widget-view+json": reference}, raw=True)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        self._show()
        if self._kind == "text" and sys.stderr.isatty():
            print(file=sys.stderr)
        if self._area is not None:
            clear_output(wait=True)

    def dispose(self) -> None:
        """Close the live area, after the record has taken its place."""
        if self._area is not None:
            self._area.close()

    def add(self, row: Row) -> None:
        """Count a row that has ended."""
        with self._lock:
            # An answer that was stopped is not done: the next run asks for it again.
            self._done += row.error is not None or (row.completion is not None and row.completion.finished)
            self._replayed += row.replayed
            self._failed += row.error is not None
            self._tokens += row.tokens

    def wait(self, wait: Wait) -> None:
        """Show that a request waits before it is sent again, until it is; the next that waits takes its place."""
        with self._lock:
            self._wait = wait
            self._until = time.monotonic() + wait.seconds

    def _waiting(self) -> list[str]:
        """Return the wait that is shown, with the seconds that are left of it."""
        left = self._until - time.monotonic()
        if self._wait is None or self._ended.is_set() or left < min(0.0, self._wait.seconds - SEEN_SECONDS):
            return []
        return [str(replace(self._wait, seconds=math.ceil(left) if self._wait.seconds >= 1 else 0.0))]

    def __str__(self) -> str:
        """Return one line: `1,204 of 10,000 rows · 41/s · 3 min left · 7 failed · 130,000 tokens`.

        While a request waits to be sent again its reason and its time stand in the place of the time that is left.
        """
        with self._lock:
            done, failed, tokens, waiting = self._done, self._failed, self._tokens, self._waiting()
            asked = done - self._replayed
        rate = asked / max(1e-9, time.monotonic() - self._start)
        parts = [f"{done:,}{'' if self._most is None else f' of {self._most:,}'} {self._what}", *waiting]
        if asked:
            parts.append(f"{rate:,.1f}/s" if rate < 10 else f"{rate:,.0f}/s")
            if self._most is not None and done < self._most and not waiting:
                parts.append(f"{duration((self._most - done) / rate)} left")
        parts += [f"{failed:,} failed"] if failed else []
        parts += [f"{tokens:,} tokens"] if tokens else []
        return " · ".join(parts)

    def _tick(self) -> None:
        logged = time.monotonic()
        while not self._ended.wait(FLUSH_SECONDS):
            self._show()
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                log.info("%s", self)

    def _show(self) -> None:
        ended = self._ended.is_set()
        if self._area is not None:
            elapsed = round(time.monotonic() - self._start, 1)
            state = "ended" if ended else "running"
            self._area.put(
                meters={"done": self._done, "most": self._most, "text": str(self), "elapsed": elapsed, "state": state}
            )
        elif self._kind == "text" and sys.stderr.isatty():
            with contextlib.suppress(OSError):
                # A line that is wider than the terminal would go on in the next one, and be there for good.
                sys.stderr.write(f"\r{shorten(str(self), os.get_terminal_size(sys.stderr.fileno()).columns - 1)}\x1b[K")
                sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
