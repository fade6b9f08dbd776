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
    given: list[object] = []
    begun: list[object] = []
    ended: list[object] = []
    failures: list[BaseException] = []
    news: SimpleQueue[None] = SimpleQueue()
    interrupted = False

    def run(work: Callable[[], object]) -> None:
        begun.append(work)  # before it looks: what is not seen among them below has not been done, and is not
        try:
            if not interrupted:
                work()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised below
            failures.append(error)
        finally:
            ended.append(work)
            news.put(None)

    def wait_for(some: list[object]) -> None:
        # A queue and no future's condition: an interrupt that falls into its lock leaves it locked.
        while len(ended) < len(some):
            with contextlib.suppress(Empty):
                news.get(timeout=HEAR_SECONDS)

    try:
        for work in works:
            pool.submit(copy_context().run, run, work)
            given.append(work)
        wait_for(given)
    except KeyboardInterrupt:
        interrupted = True
        stop()
        # One that the interrupt kept from being noted as given may have begun; one that was given may never begin.
        wait_for(begun)
    if failures:
        raise failures[0]
    return interrupted


def wait_some(futures: Collection[Future[Any]], what: str) -> DoneAndNotDoneFutures[Any]:
    """Wait for a moment, or until `what` of concurrent.futures.wait is so; an interrupt is heard at once."""
    # Libraries such as polars set a signal handler that restarts what it interrupts: a wait without end goes on.
    return wait(futures, timeout=HEAR_SECONDS, return_when=what)
