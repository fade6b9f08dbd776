"""The built-in model: how long it takes to load, and how fast it writes."""

from __future__ import annotations

import subprocess
import sys

from server import Server
from table import Row, milli

CODE = """
import time, completions_magic
client = completions_magic.Client("local")
start = time.process_time()
client.complete("Once", max_tokens=1)
loaded, tokens = time.process_time() - start, 0
start = time.process_time()
for seed in range(5):
    tokens += client.complete("Once upon a time", max_tokens=200, seed=seed).usage.completion_tokens
print(loaded, tokens / (time.process_time() - start))
"""


def measure(_server: Server) -> list[Row]:
    """Return load and speed, in a process of its own."""
    printed = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True).stdout.split()
    loaded, speed = map(float, printed)
    return [
        Row("load and first token", milli(loaded)),
        Row("tokens a second", f"{speed:,.0f}"),
    ]
