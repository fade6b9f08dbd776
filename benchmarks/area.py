"""The live area end to end: CPU and bytes on the kernel's socket for a token, at 1,000 tokens a second."""

from __future__ import annotations

from dataclasses import dataclass

from kernel import Kernel
from script import Script
from server import Server
from table import Row, absolute, beside

RATE = 1000
COUNTS = (1_000, 10_000, 50_000)
CLIENT = """
import completions_magic
chunks = completions_magic.Client(base_url={url!r}, model="m").stream("x")
"""
OFFICIAL = """
import openai
client = openai.OpenAI(base_url={url!r}, api_key="none")
chunks = client.completions.create(model="m", prompt="x", stream=True)
"""
PRINTED = """
for chunk in chunks:
    print(chunk.choices[0].text, end="", flush=True)
"""
UPDATED = """
text = ""
display(text, display_id="a")
for chunk in chunks:
    text += chunk.choices[0].text
    update_display(text, display_id="a")
"""
BOXED = """
import ipywidgets
box = ipywidgets.HTML()
display(box)
for chunk in chunks:
    box.value += chunk.choices[0].text
"""
PEERS = {
    "print a token": CLIENT + PRINTED,
    "update_display": CLIENT + UPDATED,
    "ipywidgets.HTML": CLIENT + BOXED,
    "openai + update_display": OFFICIAL + UPDATED,
}
OURS = "%%complete --base-url {url} -m m --max-tokens 50000 -o answer\nx"


@dataclass(frozen=True)
class Shown:
    """What a token cost: seconds of CPU, bytes; and messages a second."""

    cpu: float
    size: float
    rate: float


def measure(server: Server) -> list[Row]:
    """Return what the area costs beside what notebooks do today."""
    with Kernel() as kernel:
        kernel.run("%load_ext completions_magic")
        kernel.run("import openai, ipywidgets\nfrom IPython.display import display, update_display")
        for warm in (OURS, *PEERS.values()):
            show(kernel, server, warm, 20)
        ours = {count: show(kernel, server, OURS, count) for count in COUNTS}
        peers = {name: show(kernel, server, code, COUNTS[0]) for name, code in PEERS.items()}
    first = ours[COUNTS[0]]
    cpu = {name: cost.cpu for name, cost in peers.items()}
    size = {name: cost.size for name, cost in peers.items()}
    return [
        *(absolute(f"bytes a token, {count:,} tokens", cost.size, 60, octets) for count, cost in ours.items()),
        *beside(
            f"bytes a token, {COUNTS[-1]:,} tokens",
            ours[COUNTS[-1]].size,
            {f"at {COUNTS[0]:,} tokens": first.size},
            {f"at {COUNTS[0]:,} tokens": 1.5},
            octets,
        ),
        *beside(f"bytes a token, {COUNTS[0]:,} tokens", first.size, size, {}, octets),
        *(absolute(f"messages a second, {count:,} tokens", cost.rate, 31, whole) for count, cost in ours.items()),
        *beside(f"CPU of a token, {COUNTS[0]:,} tokens", first.cpu, cpu, {"openai + update_display": 1 / 20}),
        *beside(
            f"CPU of a token, {COUNTS[-1]:,} tokens", ours[COUNTS[-1]].cpu, {f"at {COUNTS[0]:,} tokens": first.cpu}, {}
        ),
    ]


def show(kernel: Kernel, server: Server, code: str, count: int) -> Shown:
    """Run a cell that shows `count` tokens; what any cell sends, an empty one too, is taken off."""
    empty = spent(kernel, "")
    shown = spent(kernel, code.format(url=server.url(Script(chunks=count, rate=RATE))))
    cpu, size, messages = (whole - bare for whole, bare in zip(shown, empty, strict=True))
    return Shown(cpu / count, size / count, messages / count * RATE)


def spent(kernel: Kernel, code: str) -> tuple[float, int, int]:
    """Run a cell; return the CPU that it took, and the bytes and messages that it sent."""
    size, messages = kernel.quiet()
    cpu = kernel.cpu
    kernel.run(code)
    cpu = kernel.cpu - cpu
    size_then, messages_then = kernel.quiet()
    return cpu, size_then - size, messages_then - messages


def octets(size: float) -> str:
    """Return a number of bytes."""
    return f"{size:,.0f} B"


def whole(number: float) -> str:
    """Return a number without its fraction."""
    return f"{number:,.0f}"
