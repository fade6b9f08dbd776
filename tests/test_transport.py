"""Reads that wait for the end of a frame, over bare sockets and over TLS."""

import contextlib
import socket
import ssl
import threading
import time

import pytest
from conftest import DONE, END, event, piece, stream_head
from test_endpoint import SELF_SIGNED

from completions_magic.transport import RECEIVE_BYTES, Watch, WatchedStream

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


def read(stream, watch):
    """Return what one read gives; fail where it waits for a frame that is to be left out."""
    came = []

    def reading():
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
    in_background(lambda: [time.sleep(0.05) or server.sendall(written) for written in (b"b", b"c", b"d")])
    assert read(stream, watch) == b"bcd"


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


def test_a_stream_that_fills_the_buffer_waits_for_no_frame():
    """A burst is read as fast as it comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    stream = WatchedStream(client)
    in_background(lambda: server.sendall(b"x" * 8 * RECEIVE_BYTES))
    watch = Watch(10, frame=LONG)
    received = read(stream, watch)
    while len(received) < 4 * RECEIVE_BYTES:
        time.sleep(0.1)  # so that the next read finds the buffer full
        watch.heard = True
        received += read(stream, watch)
    stream.close()
    server.close()


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
