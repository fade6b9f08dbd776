"""Works that run at once in a pool of threads, and an interrupt that is heard meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor, Future, wait
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .pace import HEAR_SECONDS

if TYPE_CHECKING:
    from concurrent.futures._base import DoneAndNotDoneFutures


def run_all(pool: Executor, works: Iterable[Callable[[], object]], stop: Callable[[], object]) -> bool:
    """Run all `works` in a pool and wait for them; the first interrupt calls `stop`. Return whether there was one.

    An interrupt while they are still being started is heard too. Raises what any of them has raised.
    """
    started: list[Future[object]] = []
    ended: list[object] = []
    news: SimpleQueue[None] = SimpleQueue()

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            ended.append(work)
            news.put(None)

    def wait_for_all() -> None:
        # A queue and no future's condition: an interrupt that falls into its lock leaves it locked.
        while len(ended) < len(started):
            with contextlib.suppress(Empty):
                news.get(timeout=HEAR_SECONDS)

    interrupted = False
    try:
        started.extend(pool.submit(copy_context().run, run, work) for work in works)
        wait_for_all()
    except KeyboardInterrupt:
        interrupted = True
        stop()
        wait_for_all()
    for done in started:
        done.result()
    return interrupted


def wait_some(futures: Collection[Future[Any]], what: str) -> DoneAndNotDoneFutures[Any]:
    """Wait for a moment, or until `what` of concurrent.futures.wait is so; an interrupt is heard at once."""
    # Libraries such as polars set a signal handler that restarts what it interrupts: a wait without end goes on.
    return wait(futures, timeout=HEAR_SECONDS, return_when=what)
