"""Streams that never end: every way in leaves them soon, keeps what had come, and hangs up."""

import contextlib
import signal
import socket
import threading
import time

import pytest
from conftest import Cells, ScriptedServer, event, new_shell, piece, says, stream_head

from completions_magic.asking import Asking
from completions_magic.errors import APITimeoutError, Interrupted, TooLargeError
from completions_magic.rows import read_rows

SOON = 10.0
"""Seconds: the promise is one, the rest is for a busy machine; without what is tested it takes a minute or for ever."""
LATE = 20.0
FLOWS = 2 * 2**20
"""Bytes: more than fits between the two ends while nobody reads, so the first event has been read by then."""
HUGE = 2**40
BEFORE = stream_head() + piece(event("Hel"))
KINDS = {
    "events": (b"", event("x" * 4000)),
    "comments": (b"", b": ping\n\n" * 500),
    "one line": (b"data: ", b"x" * 4000),
    "lines of one event": (b"", b"data: xxxx\n" * 400),
}
LIMITS = {"comments": APITimeoutError, "one line": TooLargeError, "lines of one event": TooLargeError}
REASONS = {"stop": "stopped", "interrupt": "interrupted", "limit": "error", "close": None}


class Endless(ScriptedServer):
    """Sends `first` and then `block` again and again, as fast as it is read, to each who asks.

    `flowing` counts the answers of which much has been read, and `left` those that were hung up on.
    """

    def __init__(self, first, block):
        self.flowing = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self.block = piece(block)
        super().__init__([says(BEFORE, *([piece(first)] if first else []), self.flow)])

    def flow(self, connection):
        """Send without end."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        sent = 0
        try:
            while True:
                connection.sendall(self.block)
                if sent < FLOWS <= sent + len(self.block):
                    self.flowing.release()
                sent += len(self.block)
        except OSError:
            self.left.release()


class End:
    """How an answer is ended: by what is done once it flows from the server, or by a limit in `settings`."""

    def __init__(self, how, kind, server):
        self.how = how
        self.settings = {"event_limit": HUGE, "timeout": 60.0, "first_token_timeout": 60.0}
        if how == "limit":
            self.settings |= {"event_limit": 2**20, "timeout": 0.5 if kind == "comments" else 60.0}
        self._server = server
        self._began = time.monotonic()

    @contextlib.contextmanager
    def after(self, act=None, *, calls=1):
        """Do `act`, or interrupt the main thread, when so many answers flow; the block is over soon afterwards."""
        if self.how in ("limit", "close"):
            yield
            assert time.monotonic() - self._began < LATE
            return
        actor = threading.Thread(target=self._act, args=(interrupt if self.how == "interrupt" else act, calls))
        actor.start()
        yield
        took = time.monotonic() - self._began
        actor.join()
        assert took < SOON

    def _act(self, act, calls):
        for _ in range(calls):
            self._server.flowing.acquire(timeout=LATE)
        self._began = time.monotonic()
        act()


def interrupt():
    """Interrupt the main thread, as a person does."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def by_client(server, end, cells, folder):
    """Ask for a whole completion."""
    with server.client(**end.settings) as client, end.after(), pytest.raises((Interrupted, *LIMITS.values())) as caught:
        client.complete("Say", stream=True)
    return [caught.value.partial], caught.value


def by_stream(server, end, cells, folder, **settings):
    """Read the chunks."""
    error = None
    with server.client(**end.settings, **settings) as client:
        stream = client.stream("Say")
        with end.after(stream.stop):
            try:
                for _ in stream:
                    if end.how == "close":
                        stream.close()
            except (Interrupted, *LIMITS.values()) as caught:
                error = caught
    return [stream.ended("stopped" if stream.stopped else None) if error is None else error.partial], error


def by_cassette(server, end, cells, folder):
    """Read the chunks while they are recorded; nothing that was cut off is ever replayed."""
    came = by_stream(server, end, cells, folder, cassette=folder / "tape.jsonl")
    with server.client(cassette=folder / "tape.jsonl", record="none") as client, pytest.raises(Exception, match="cut"):
        client.complete("Say", stream=True)
    return came


def line(server, end):
    """Return the options of a cell."""
    return f"-m m --base-url {server.base_url} --timeout {end.settings['timeout']} --first-token-timeout 20 -o it"


def by_cell(server, end, cells, folder):
    """Run a cell."""
    with end.after():
        ran = cells.run(f"%%complete {line(server, end)}\nSay")
    return [cells.names["it"]], ran.error_in_exec


def by_background(server, end, cells, folder):
    """Run a cell that returns at once."""
    running = cells.run(f"%%complete {line(server, end)} --bg\nSay").result
    error = None
    with end.after(running.stop):
        try:
            running.wait(LATE)
        except tuple(LIMITS.values()) as caught:
            error = caught
    return [cells.names["it"]], error


def by_rows(server, end, cells, folder):
    """Run a cell over two rows."""
    cells.names["rows"] = ["one", "two"]
    with end.after(calls=2):
        ran = cells.run(f"%%complete {line(server, end)} -i rows\n{{{{ row }}}}")
    batch = cells.names["it"]
    return [row.completion for row in batch], ran.error_in_exec


def by_batch(server, end, cells, folder):
    """Ask for two rows in a program."""
    with server.client(**end.settings) as client:
        asking = Asking(read_rows(["one", "two"]), lambda row: client.request(row["row"], stream=True), client)
        with end.after(asking.stop, calls=2):
            batch = asking.run()
    return [row.completion for row in batch], batch[0].error


WAYS = {
    by_client: ("interrupt", "limit"),
    by_stream: ("interrupt", "stop", "close", "limit"),
    by_cassette: ("interrupt", "stop", "close", "limit"),
    by_cell: ("interrupt", "limit"),
    by_background: ("stop", "limit"),
    by_rows: ("interrupt", "limit"),
    by_batch: ("stop", "limit"),
}
CASES = [
    pytest.param(way, how, kind, id=f"{way.__name__}-{how}-{kind}")
    for way, ends in WAYS.items()
    for how in ends
    for kind in KINDS
    if how != "limit" or kind in LIMITS  # text without end is what one may have asked for
]


@pytest.mark.parametrize(("way", "how", "kind"), CASES)
def test_an_endless_stream_is_left_by_every_way_in(way, how, kind, tmp_path):
    """Stop, interrupt and limit end it soon; the text that came first is kept and marked, and the server is left."""
    with contextlib.closing(Endless(*KINDS[kind])) as server, new_shell() as shell:
        end = End(how, kind, server)
        shell.run_cell(f"%config CompletionsMagics.event_limit = {end.settings['event_limit']}").raise_error()
        kept, error = way(server, end, Cells(shell, server), tmp_path)
        assert type(error) is {"interrupt": Interrupted, "limit": LIMITS.get(kind)}.get(how, type(None))
        assert all(completion.text.startswith("Hel") for completion in kept)
        assert {completion.choices[0].finish_reason for completion in kept} == {REASONS[how]}
        assert all(server.left.acquire(timeout=SOON) for _ in kept)
        assert len(server.heard) == len(kept)
