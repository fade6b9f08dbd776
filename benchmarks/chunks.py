"""What a streamed chunk costs: in a burst, and as tokens come, at 1,000 and at 100 a second."""

from __future__ import annotations

from rounds import rounds
from script import Script
from server import Server
from table import Row, beside
from ways import NAMES, Ways, named

BURST = 20_000
SHORT = 2_000
FRAMED = 4_000
SECONDS = 1.0


def measure(server: Server) -> list[Row]:
    """Return the CPU of a chunk beside that of other clients."""
    rows = [*burst(server), *logprobs(server), *framings(server), *paced(server, 1000), *paced(server, 100)]
    return [*rows, *short_burst(server)]  # last, since what litellm loads slows down all that follows in the process


def burst(server: Server) -> list[Row]:
    """20,000 chunks at once, an HTTP chunk each."""
    script = Script(chunks=BURST)
    ways = Ways(server.url(script), script)
    costs = rounds(named(ways, ["ours", "keyed", *NAMES]), times=3, count=BURST)
    others = {name: costs[way].cpu for way, name in NAMES.items()}
    goals = {NAMES["limit"]: 1.5, NAMES["official"]: 1 / 40}
    return [
        *beside("CPU of a chunk, burst of 20,000", costs["ours"].cpu, others, goals),
        *beside("the same with a key", costs["keyed"].cpu, {"openai": costs["official"].cpu}, {}),
    ]


def short_burst(server: Server) -> list[Row]:
    """Return the CPU of a chunk of fewer, beside litellm."""
    script = Script(chunks=SHORT)
    costs = rounds(named(Ways(server.url(script), script), ["ours", "litellm"]), times=3, count=SHORT)
    return beside(f"CPU of a chunk, burst of {SHORT:,}", costs["ours"].cpu, {"litellm": costs["litellm"].cpu}, {})


def logprobs(server: Server) -> list[Row]:
    """Chunks with the log-probabilities of five alternatives."""
    script = Script(chunks=BURST, logprobs=5)
    ways = Ways(server.url(script), script)
    costs = rounds(named(ways, ["ours", "limit", "official"]), times=3, count=BURST)
    others = {NAMES[name]: costs[name].cpu for name in ("limit", "official")}
    return beside("CPU of a chunk, logprobs=5", costs["ours"].cpu, others, {NAMES["official"]: 1 / 20})


def framings(server: Server) -> list[Row]:
    """Other framings of the same chunks, and fields that the API does not name."""
    kinds = {
        "events cut anywhere": Script(framing="cut", chunks=FRAMED),
        "64 events an HTTP chunk": Script(framing="many", chunks=FRAMED),
        "n=4": Script(chunks=FRAMED, n=4),
        "fields beyond the API's": Script(chunks=FRAMED, more=1),
    }
    rows = []
    for kind, script in kinds.items():
        costs = rounds(named(Ways(server.url(script), script), ["ours", "official"]), times=3, count=FRAMED)
        rows += beside(f"CPU of a chunk, {kind}", costs["ours"].cpu, {"openai": costs["official"].cpu}, {})
    return rows


def paced(server: Server, rate: int) -> list[Row]:
    """Tokens that come one by one: read once a frame, as a person's view does, and each at once, as programs do."""
    count = int(rate * SECONDS)
    script = Script(chunks=count, rate=rate)
    ways = Ways(server.url(script), script)
    names = ["limit", "stock", "official"]
    costs = rounds(named(ways, ["framed", "ours", *names]), times=2 if rate > 100 else 1, count=count)
    others = {NAMES[name]: costs[name].cpu for name in names}
    goals = {NAMES["limit"]: 0.8, NAMES["official"]: 1 / 15} if rate == 1000 else {}
    return [
        *beside(f"CPU of a token at {rate:,}/s, read once a frame", costs["framed"].cpu, others, goals),
        *beside(f"CPU of a token at {rate:,}/s, each at once", costs["ours"].cpu, others, {}),
    ]
