"""Interleaved rounds: every way once, then every way again; medians, so that a busy machine disturbs all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Seconds of the process's CPU and of the clock, for one of what was counted."""

    cpu: float
    wall: float


def rounds(ways: Mapping[str, Callable[[], object]], *, times: int = 5, count: int = 1) -> dict[str, Cost]:
    """Run each way `times` times in turns, after once to warm up; return the medians by name, over `count`."""

    def cost(way: Callable[[], object]) -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        way()
        return Cost((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)

    costs = in_turns({name: partial(cost, way) for name, way in ways.items()}, times)
    return {
        name: Cost(median(cost.cpu for cost in listed), median(cost.wall for cost in listed))
        for name, listed in costs.items()
    }


def in_turns(ways: Mapping[str, Callable[[], T]], times: int) -> dict[str, list[T]]:
    """Return what each way gives in `times` rounds, after one to warm up."""
    given: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(times + 1):
        for name, way in ways.items():
            gc.collect()
            one = way()
            if number:
                given[name].append(one)
    return given
