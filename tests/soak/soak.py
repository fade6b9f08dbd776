"""A soak: cells in one kernel until the server has heard so many requests, and what the kernel holds meanwhile."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from kernel import Kernel

from completions_magic.magics import LONGEST_HISTORY

from .cells import Person
from .server import SoakServer

SAMPLES = 20
COUNT = """[
    len(comm.get_comm_manager().comms),
    len(gc.get_objects()),
    sum(
        len(client.endpoint._connection._idle)
        for magics in get_ipython().configurables
        if isinstance(magics, CompletionsMagics)
        for client in magics.session._clients.values()
        if client.endpoint._connection is not None
    ),
]"""
"""Comms, objects, and the connections that wait for the next request."""
FORGET = """
%reset -f in out
_history = get_ipython().history_manager
_history.outputs.clear()
_history.exceptions.clear()
_pub = get_ipython().kernel.iopub_thread
asyncio.run_coroutine_threadsafe(_pub._event_pipe_gc(), _pub.io_loop.asyncio_loop).result()
gc.collect()
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(None).malloc_trim(0)
"""
"""Lets go what IPython and ipykernel keep, which is theirs and the person's: every cell with its outputs, for ever;
and the pipes of threads that have ended, up to ten seconds. What is free goes back to the system, where glibc can."""

COMPACT = {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"}
"""Python's own allocator, and one arena a thread, keep what is free in part: 10 MB at a time, and never the same."""
BOUNDS = {"memory, MB": 8.0, "threads": 0, "descriptors": 2, "comms": 0, "objects": 1000}
"""By how much the median of the last quarter may be above that of the second; IPython alone, in cells that ask nothing,
keeps 0.6 MB more after every thousand."""
AT_ONCE = ("threads", "descriptors", "comms")
"""What must not grow from the start; memory and objects do, until a session's history of requests is full."""


@dataclass(frozen=True)
class Sample:
    """What the kernel held after so many requests."""

    requests: int
    faults: int
    cells: int
    failed: int
    pressed_again: int
    seconds: float
    held: dict[str, float]

    def row(self) -> str:
        """Return a line of the table."""
        told = (self.requests, self.faults, self.cells, self.failed, self.pressed_again, round(self.seconds))
        held = (f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in self.held.values())
        return "".join(f"{value:>{WIDTH},}" for value in told) + "".join(f"{value:>{WIDTH}}" for value in held)


WIDTH = 12
HEAD = "".join(f"{name:>{WIDTH}}" for name in ("requests", "faults", "cells", "failed", "again", "seconds", *BOUNDS))


def soak(folder: Path, requests: int) -> Iterator[Sample]:
    """Run cells until the server has heard `requests`; yield what the kernel holds twenty times on the way."""
    with contextlib.closing(SoakServer()) as server, contextlib.closing(Kernel(folder, **COMPACT)) as kernel:
        start = time.monotonic()
        person = Person(kernel, server)
        for number in range(1, SAMPLES + 1):
            while server.requests < requests * number // SAMPLES:
                person.go_on()
            came = (server.requests, server.faults, person.cells, person.failed, person.pressed_again)
            yield Sample(*came, time.monotonic() - start, hold(kernel))


def hold(kernel: Kernel) -> dict[str, float]:
    """Return what the kernel holds."""
    kernel.run(FORGET)
    comms, objects, kept = kernel.value(COUNT)
    kernel.said.clear()
    process = psutil.Process(kernel.pid)
    # One to four connections are kept, as many as the last sweep had left: that many are no leak, and no less of one.
    descriptors = process.num_fds() - kept
    held = (process.memory_info().rss / 2**20, process.num_threads(), descriptors, comms, objects)
    return dict(zip(BOUNDS, held, strict=True))


def growth(samples: list[Sample]) -> dict[str, float]:
    """Return by how much the median of the last quarter is above that of the second; the first warms the kernel up."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return {
        name: statistics.median(one.held[name] for one in last) - statistics.median(one.held[name] for one in second)
        for name in BOUNDS
    }


def judged(samples: list[Sample]) -> dict[str, float]:
    """Return the bounds that count."""
    is_full = samples[len(samples) // 4].cells > LONGEST_HISTORY
    return {name: bound for name, bound in BOUNDS.items() if is_full or name in AT_ONCE}


def grows(samples: list[Sample]) -> list[str]:
    """Return what grows."""
    grown = growth(samples)
    return [name for name, bound in judged(samples).items() if grown[name] > bound]
