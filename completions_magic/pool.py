"""Works that run at once in a pool of threads, and an interrupt that is heard meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ALL_COMPLETED, Executor, Future, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures._base import DoneAndNotDoneFutures

HEAR_SECONDS = 0.1


def run_all(pool: Executor, works: Iterable[Callable[[], object]], stop: Callable[[], object]) -> bool:
    """Run all `works` in a pool and wait for them; the first interrupt calls `stop`. Return whether there was one.

    An interrupt while they are still being started is heard too. Raises what any of them has raised.
    """
    started: list[Future[object]] = []
    interrupted = False
    try:
        started.extend(pool.submit(copy_context().run, work) for work in works)
        _wait_for(started)
    except KeyboardInterrupt:
        interrupted = True
        stop()
        _wait_for(started)
    for done in started:
        done.result()
    return interrupted


def _wait_for(futures: Collection[Future[Any]]) -> None:
    while wait_some(futures, ALL_COMPLETED).not_done:
        pass


def wait_some(futures: Collection[Future[Any]], what: str) -> DoneAndNotDoneFutures[Any]:
    """Wait for a moment, or until `what` of concurrent.futures.wait is so; an interrupt is heard at once."""
    # Libraries such as polars set a signal handler that restarts what it interrupts: a wait without end goes on.
    return wait(futures, timeout=HEAR_SECONDS, return_when=what)
