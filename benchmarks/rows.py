"""100,000 rows with a journal: rows a second and the peak of memory, beside the official client without one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from memory import PEAK
from script import Script
from server import Server
from table import Row, beside, megabytes, micro

ROWS = 100_000
AT_ONCE = 64
OURS = """
import json, sys, time
import completions_magic
url, rows, at_once, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
prompts = (f"Row {number}:" for number in range(rows))
start = time.perf_counter()
with completions_magic.Client(base_url=url, model="m", cassette=path) as client:
    batch = client.complete_many(prompts, concurrency=at_once, max_tokens=8)
wall = time.perf_counter() - start
print(json.dumps([wall, time.process_time(), peak(), sum(row.error is None for row in batch)]))
"""
OFFICIAL = """
import asyncio, json, sys, time
import openai
url, rows, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def main():
    gate = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        async def one(number):
            async with gate:
                answer = await client.completions.create(model="m", prompt=f"Row {number}:", max_tokens=8)
                return answer.choices[0].text
        return await asyncio.gather(*map(one, range(rows)))

start = time.perf_counter()
texts = asyncio.run(main())
wall = time.perf_counter() - start
print(json.dumps([wall, time.process_time(), peak(), len(texts)]))
"""


def measure(server: Server) -> list[Row]:
    """Return time, CPU and memory of both, each in a process of its own; every row of ours is on disk in the end."""
    url = server.url(Script(chunks=8, delay=20))
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        wall, cpu, peak = run(OURS, url, ROWS, journal)
        with journal.open("rb") as file:
            assert sum(1 for _ in file) == ROWS
    wall_there, cpu_there, peak_there = run(OFFICIAL, url, ROWS, journal)
    what, other = f"{ROWS:,} rows, {AT_ONCE} at once, journal on", "AsyncOpenAI, no journal"
    return [
        Row(f"{what}: rows a second", f"{ROWS / wall:,.0f}", other, f"{ROWS / wall_there:,.0f}", wall / wall_there),
        *beside(f"{what}: CPU a row", cpu / ROWS, {other: cpu_there / ROWS}, {}, micro),
        *beside(f"{what}: peak of memory", peak, {other: peak_there}, {}, megabytes),
    ]


def run(code: str, url: str, rows: int, journal: Path) -> tuple[float, float, float]:
    """Return seconds, seconds of CPU and the peak in bytes of a fresh Python that answers every row."""
    command = [sys.executable, "-c", PEAK + code, url, str(rows), str(AT_ONCE), str(journal)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wall, cpu, peak, answered = json.loads(printed)
    assert answered == rows
    return wall, cpu, peak
