"""Reads that wait for the end of a frame, over bare sockets and over TLS; connections that are kept."""

import contextlib
import fcntl
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpcore
import psutil
import pytest
from conftest import DONE, END, HELLO, ScriptedServer, answer, at_call, event, eventually, piece, says, stream_head
from test_endpoint import SELF_SIGNED

from completions_magic.errors import StreamError
from completions_magic.transport import LONGEST_WAIT, RECEIVE_BYTES, Watch, WatchedStream

LONG = 60.0


@pytest.fixture(params=["plain", "tls"])
def ends(request, tmp_path):
    """Give the two ends of a connection: the server's socket, and the stream that the client reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    if request.param == "tls":
        client, server = secured(client, server, tmp_path / "self-signed.pem")
    client.settimeout(10)
    stream = WatchedStream(client)
    yield server, stream
    stream.close()
    server.close()


def secured(client, server, pem):
    """Return both ends within TLS."""
    pem.write_text(SELF_SIGNED)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    asking = ssl.create_default_context(cafile=pem)
    wrapped = []
    shaking = threading.Thread(target=lambda: wrapped.append(serving.wrap_socket(server, server_side=True)))
    shaking.start()
    client = asking.wrap_socket(client, server_hostname="localhost")
    shaking.join()
    return client, wrapped[0]


def in_background(write):
    """Run what the server does, until the client is gone."""

    def writing():
        with contextlib.suppress(OSError):
            write()

    threading.Thread(target=writing, daemon=True).start()


def read(stream, watch, meanwhile=None):
    """Return what one read gives, `meanwhile` done as it begins to rest; fail where it rests for longer than it may."""
    came = []

    def reading():
        if meanwhile is not None:
            at_call(time.sleep, meanwhile)
        with watch:
            came.append(stream.read(RECEIVE_BYTES, 10))

    thread = threading.Thread(target=reading, daemon=True)
    thread.start()
    thread.join(10)
    assert came
    return came[0]


def test_once_something_has_come_what_comes_within_a_frame_is_read_together(ends):
    """Three writes after the first event are one read, in TLS too, where each is a record of its own."""
    server, stream = ends
    watch = Watch(10, frame=0.5)
    server.sendall(b"a")
    assert read(stream, watch) == b"a"
    watch.heard = True
    assert read(stream, watch, lambda: [server.sendall(written) for written in (b"b", b"c", b"d")]) == b"bcd"


def test_before_anything_has_come_no_frame_is_waited_for(ends):
    """The head and the first event are read as they come."""
    server, stream = ends
    watch = Watch(10, frame=LONG)
    for written in (b"head", b"first"):
        server.sendall(written)
        assert read(stream, watch) == written


def test_the_end_of_the_connection_after_a_frame_loses_nothing(ends):
    """What came before the end is read, and then the end."""
    server, stream = ends
    watch = Watch(10, frame=0.3)
    server.sendall(b"a")
    assert read(stream, watch) == b"a"
    watch.heard = True
    server.sendall(b"b")
    if isinstance(server, ssl.SSLSocket):
        in_background(server.unwrap)
    else:
        server.shutdown(socket.SHUT_WR)
    assert read(stream, watch) == b"b"
    assert read(stream, watch) == b""


def test_a_wait_in_several_pieces_is_one_wait(ends):
    """What comes after a piece of the wait is read, and time is up when the watch says so, not after a piece."""
    server, stream = ends
    in_background(lambda: time.sleep(1.2 * LONGEST_WAIT) or server.sendall(b"late"))
    assert read(stream, Watch(10)) == b"late"
    began = time.monotonic()
    with pytest.raises(httpcore.ReadTimeout), Watch(1.2 * LONGEST_WAIT):
        stream.read(RECEIVE_BYTES, 10)
    assert time.monotonic() - began >= 1.2 * LONGEST_WAIT
    began = time.monotonic()
    with pytest.raises(httpcore.ReadTimeout):
        stream.read(RECEIVE_BYTES, 1.2 * LONGEST_WAIT)
    assert time.monotonic() - began >= 1.2 * LONGEST_WAIT


INTERRUPTED = """
import signal, socket, sys, threading, psutil
from completions_magic.transport import Watch, WatchedStream

def is_waiting():
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code is WatchedStream._waiting.__code__ and psutil.Process().status() == psutil.STATUS_SLEEPING

# A signal that another thread gets leaves this one in its read, like one that falls right before the read.
def interrupt():
    while not is_waiting(): pass
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

reading, silent = socket.socketpair()
try:
    threading.Thread(target=interrupt).start()
    with Watch(60): WatchedStream(reading).read(1, 60)
except KeyboardInterrupt:
    print("heard")
"""


def test_an_interrupt_that_does_not_wake_the_read_is_heard():
    """Python runs a signal's handler between two calls of the system: a wait of a minute would keep it for a minute."""
    heard = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=30, check=True)
    assert heard.stdout == "heard\n"


def test_a_stream_that_fills_the_buffer_waits_for_no_frame():
    """A burst is read as fast as it comes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * RECEIVE_BYTES)  # before it says how much it takes
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    stream = WatchedStream(client)
    in_background(lambda: server.sendall(b"x" * 3 * RECEIVE_BYTES))
    assert eventually(lambda: waiting(client) == 3 * RECEIVE_BYTES)
    watch = Watch(10, frame=LONG)
    for _ in range(3):
        assert len(read(stream, watch)) == RECEIVE_BYTES
        watch.heard = True
    stream.close()
    server.close()


def waiting(connection):
    """Return how many bytes have come that nobody has read."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))[0]


def test_an_answer_read_by_frames_is_the_same(server):
    """Chunk by chunk, though the events came together."""

    def slowly(connection):
        connection.sendall(stream_head())
        for word in ("a", "b", "c", "d", "e"):
            connection.sendall(piece(event(word)))
            time.sleep(0.01)
        connection.sendall(piece(event(reason="stop")) + piece(DONE) + END)

    server.scripts = [slowly]
    with server.client() as client:
        answer = client.send(client.request("x", stream=True), frame=0.04)
        assert [chunk.text for chunk in answer] == ["a", "b", "c", "d", "e", ""]
        assert answer.partial.finished


class Halves(ScriptedServer):
    """Answers "slow" with one event, and with the rest once that was `shown`; then `sent` is set. All else at once."""

    def __init__(self):
        self.shown = threading.Event()
        self.sent = threading.Event()
        rest = piece(event("lo")) + piece(event(reason="stop")) + piece(DONE) + END
        self.slow = says(stream_head() + piece(event("Hel")), self.shown, rest, lambda _: self.sent.set())
        super().__init__()

    def script(self, heard):
        """Return the answer by the prompt."""
        return self.slow if heard.json["prompt"] == "slow" else HELLO


def test_a_connection_that_is_taken_is_nobody_elses():
    """Another thread's look for idle connections closes none that was given away, wherever the two meet.

    httpcore's pool does (encode/httpcore, issue 1110): it looks at the state of a connection before it looks for what
    has come, and what has come in between is another request's answer.
    """
    server = Halves()
    given, looked = threading.Event(), threading.Event()

    def slow():
        at_call(httpcore.HTTP11Connection.handle_request, lambda: given.set() or looked.wait(5))
        for chunk in client.stream("slow"):
            if chunk.text == "Hel":
                server.shown.set()
                quick_one.result()
            yield chunk.text

    def quick():
        given.wait(5)
        at_call(WatchedStream.get_extra_info, lambda: looked.set() or server.sent.wait(5))
        try:
            return client.complete("quick").text
        finally:
            looked.set()

    with server.client(retries=0) as client, ThreadPoolExecutor(2) as threads:
        client.complete("leaves an idle connection")
        quick_one = threads.submit(quick)
        assert threads.submit(lambda: "".join(slow())).result() == "Hello"
        assert quick_one.result() == "Hello"
    server.close()


def at_once(client, count):
    """Read so many answers, each begun before the first has ended; return their texts."""
    streams = [client.stream("a") for _ in range(count)]
    begun = [next(stream).text for stream in streams]
    return [begin + "".join(chunk.text for chunk in stream) for begin, stream in zip(begun, streams, strict=True)]


def test_as_many_connections_are_made_as_are_needed_at_once(server):
    """And no more: who asks later uses one that is there."""
    server.scripts = [HELLO]
    with server.client() as client:
        for count, connections in ((1, 1), (1, 1), (20, 20), (1, 20), (20, 20)):
            assert at_once(client, count) == ["Hello"] * count
            assert len(server._open) == connections


def test_connections_that_the_server_has_closed_are_let_go(server):
    """Those that nobody needs again too: each holds a descriptor."""
    server.scripts = [HELLO]
    with server.client(retries=0) as client:
        at_once(client, 5)
        for connection in server._open:
            connection.shutdown(socket.SHUT_RDWR)
        assert eventually(lambda: client.complete("a").text == "Hello" and len(connected_to(server)) == 1)


def test_closing_a_client_closes_its_connections(server):
    """The idle ones, and one that is being read: who reads it is told, and does not wait."""
    server.scripts = [HELLO]
    client = server.client(retries=0)
    at_once(client, 3)
    server.scripts = [says(stream_head(), piece(event("Hel")), server.wait_until_gone)]
    stream = client.stream("a")
    next(stream)
    with ThreadPoolExecutor(1) as reader:
        rest = reader.submit(next, stream)
        client.close()
        assert isinstance(rest.exception(5), StreamError)
    assert connected_to(server) == []
    assert stream.partial.text == "Hel"


def connected_to(server):
    """Return this process's connections to a server."""
    return [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == server.port]


# -- what nobody has asked for -----------------------------------------------------------------------------------------

SAID = {
    "chunked": HELLO,
    "by its length": answer({"choices": [{"text": "Hello", "index": 0, "finish_reason": "stop"}]}),
}


@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["at once", "later"])
@pytest.mark.parametrize("hello", SAID.values(), ids=SAID.keys())
def test_an_answer_that_nobody_asked_for_is_nobodys(server, hello, pause):
    """What comes behind an answer is not taken for the next one: that is asked for on another connection."""
    unasked = hello.replace(b"Hel", b"Bad")
    late = threading.Event()

    def twice(connection):
        connection.sendall(hello if pause else hello + unasked)
        time.sleep(pause)
        connection.sendall(unasked if pause else b"")
        late.set()
        server.wait_until_gone(connection)

    server.scripts = [twice, hello]
    with server.client(retries=0) as client:
        assert client.complete("a").text == "Hello"
        assert late.wait(5)
        assert client.complete("a").text == "Hello"
    assert len(server.heard) == 2


def test_a_connection_is_kept_behind_whatever_ends_an_answer(server):
    """A length or a last chunk: the same connection is asked again."""
    server.scripts = [*SAID.values(), *SAID.values()]
    with server.client(retries=0) as client:
        for _ in server.scripts:
            client.complete("a")
    assert len(server._open) == 1
