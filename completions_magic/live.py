"""A view that follows answers while they stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from .errors import CompletionsError
from .inert import one_line
from .slot import Slot

FLUSH_SECONDS = 0.05
CLOSE_SECONDS = 2.0
"""A server that has not sent the head of its answer may keep a stopped thread for longer than this."""
LONGEST_LINE = 300


class Live(Slot):
    """A slot that reads in threads of its own; all that they and the page change is changed under `_lock`."""

    _lock: threading.RLock
    _readers: list[threading.Thread]

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Return a view that can be closed, as ipywidgets closes one whose making has failed."""
        view: Self = super().__new__(cls, *given, **named)
        view._lock = threading.RLock()
        view._readers = []
        return view

    def close(self) -> None:
        """End what is being streamed, and remove the view."""
        with self._lock:
            self._stop()
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join(CLOSE_SECONDS)
        super().close()

    def _stop(self) -> None:
        """End the stream in flight."""
        raise NotImplementedError

    def _follow(self, read: Callable[[], None], show: Callable[[], None], fail: Callable[[Exception], None]) -> None:
        """Call `read` in a thread, `show` 20 times a second meanwhile, and `fail` with what it raises."""
        reader = threading.Thread(
            target=self._run_reader, args=(read, show, fail), name=f"completions-{self.kind}", daemon=True
        )
        self._readers = [*(known for known in self._readers if known.is_alive()), reader]
        reader.start()

    def _run_reader(
        self, read: Callable[[], None], show: Callable[[], None], fail: Callable[[Exception], None]
    ) -> None:
        ended = threading.Event()
        ticker = threading.Thread(
            target=self._tick, args=(show, ended), name=f"completions-{self.kind}-ticker", daemon=True
        )
        ticker.start()
        try:
            read()
        except Exception as error:  # noqa: BLE001  # whatever it is, the person who looks at the view reads it there
            with self._lock:
                fail(error)
        finally:
            ended.set()
            ticker.join()

    def _tick(self, show: Callable[[], None], ended: threading.Event) -> None:
        while not ended.wait(FLUSH_SECONDS):
            with self._lock:
                show()


def in_words(error: BaseException) -> str:
    """Return what went wrong as one line for a view."""
    known = isinstance(error, CompletionsError)
    return one_line(str(error) if known else f"{type(error).__name__}: {error}", LONGEST_LINE)
