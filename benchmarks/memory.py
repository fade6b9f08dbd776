"""What a process holds: with the client loaded, and while three streams of 200,000 chunks are read."""

from __future__ import annotations

import subprocess

from kernel import PLAIN
from script import Script
from server import Server
from table import Row, absolute, megabytes

CHUNKS = 200_000
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
"""
LOADED = (
    "import completions_magic\nclient = completions_magic.Client(base_url={url!r}, model='m')\nclient.complete('x')\n"
)
STREAMS = """
before = peak()
client = completions_magic.Client(base_url={url!r}, model="m")
for _ in range(3):
    answer = client.stream("x")
    for chunk in answer:
        pass
print(peak() - before, len(answer.partial.text))
"""


def measure(server: Server) -> list[Row]:
    """Return the peak of resident memory, each in a process of its own."""
    loaded_code = PEAK + LOADED.format(url=server.url(Script(chunks=64)))
    bare, _ = run(f"{PEAK}print(peak(), 0)")
    loaded, _ = run(f"{loaded_code}print(peak(), 0)")
    held, text = run(loaded_code + STREAMS.format(url=server.url(Script(chunks=CHUNKS))))
    return [
        absolute("a client that has asked once, over bare Python", loaded - bare, 20 * 2**20, megabytes),
        absolute(
            f"three streams of {CHUNKS:,} chunks, beyond one text of {megabytes(text)}",
            held - text,
            4 * 2**20,
            megabytes,
        ),
    ]


def run(code: str) -> tuple[int, int]:
    """Return the two numbers that a fresh Python prints."""
    printed = subprocess.run([PLAIN, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return int(printed[0]), int(printed[1])
