"""Interleaved rounds: every way once, then every way again; medians, so that a busy machine disturbs all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Cost:
    """Seconds of the process's CPU and of the clock, for one of what was counted."""

    cpu: float
    wall: float


def rounds(ways: Mapping[str, Callable[[], object]], *, times: int = 5, count: int = 1) -> dict[str, Cost]:
    """Run each way `times` times in turns, after once to warm up; return the medians by name, over `count`."""
    measured: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(times + 1):
        for name, way in ways.items():
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            cost = Cost((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)
            if number:
                measured[name].append(cost)
    return {
        name: Cost(median(cost.cpu for cost in costs), median(cost.wall for cost in costs))
        for name, costs in measured.items()
    }
