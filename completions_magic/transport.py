"""HTTP over sockets that can be watched: how long a read may still take, and which socket to shut to end it.

On the public seams of httpx (a transport) and httpcore (a connection over a stream). What httpx brings along knows one
timeout for each read, which every keep-alive comment and every single byte starts anew.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import httpcore
import httpx

from .framing import ChunkJoiner

RECEIVE_BYTES = 2**16
UNSENT_BYTES = 2**16
KEPT_SECONDS = 30.0
"""How long an idle connection is kept."""
LENIENCE = 1.02
LONGEST_WAIT = 1.0
"""Seconds a socket waits in one piece: an interrupt that falls right before the wait is heard after it."""
QUIET_SECONDS = 0.5
"""So long a peer may take to answer to TLS before it is asked whether it speaks plain http."""
KERNEL_WAITS = sys.platform == "linux"
"""Whether a socket that blocks can be given a time: elsewhere it has another form, or is not kept."""
FRESH_SECONDS = 1.0 if KERNEL_WAITS else 0.0
TCP_ESTABLISHED = 1
TCP_RECEIVED = slice(128, 136)
"""Where in the kernel's state of a connection it says how many bytes have come; an old one leaves it out."""
FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class Watch:
    """Seconds left until something must have come; and the socket that is being read or connected meanwhile.

    `limit` is the longest silence, and `first`, where it is given, the longest one before anything has come. Who has
    got what was waited for sets `heard`: the time begins anew when it is looked at next. Once something has come, what
    comes within `frame` seconds is read together: who looks at it sees no difference.
    """

    def __init__(self, limit: float, frame: float = 0.0, *, first: float | None = None) -> None:
        self.limit = limit
        self.first = first
        self.frame = frame
        self._flows = False
        self._next = 0.0
        self.socket: socket.socket | None = None
        self.interrupted = False
        self.allow(limit if first is None else first)

    def restart(self) -> None:
        """Begin anew: what was waited for has come."""
        self._flows = True
        self.first = None
        self.allow(self.limit)

    def allow(self, seconds: float) -> None:
        """Let so much time pass from now on."""
        self.heard = False
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds left, never below 0."""
        if self.heard:
            self.restart()
        return max(0.0, self._until - time.monotonic())

    def rest(self) -> bool:
        """Wait until the frame is over, if anything has come in it; say whether more may have come meanwhile."""
        rests = self.frame > 0 and (self._flows or self.heard)
        if rests:
            time.sleep(max(0.0, self._next - time.monotonic()))
        self._flows = False
        self._next = time.monotonic() + self.frame
        return rests

    def __enter__(self) -> None:
        """Apply to what this thread reads within the block."""
        self._token = _watch.set(self)

    def __exit__(self, *_: object) -> None:
        _watch.reset(self._token)

    def interrupt(self) -> bool:
        """Shut the socket, from any thread: a read or a connect on it ends. Say whether there was one.

        Where there is none yet, since a name is being looked up, the next one ends before it is used.
        """
        self.interrupted = True
        watched = self.socket
        if watched is None:
            return False
        with contextlib.suppress(OSError):
            # Closed with a reset: after an orderly end a peer that waits for room to send may wait for a minute more.
            watched.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Below TLS: its own shutdown would pull the rug from under the reader.
            socket.socket.shutdown(watched, socket.SHUT_RDWR)
        return True


_watch: ContextVar[Watch | None] = ContextVar("completions_magic_watch", default=None)


def _patience(watched: socket.socket, timeout: float | None) -> float | None:
    """Note the socket with the watch of this thread; return how long it may take, or raise where it was interrupted."""
    watch = _watch.get()
    if watch is not None:
        watch.socket = watched
        # After it is noted: who interrupts meanwhile either finds it or is seen here.
        if watch.interrupted:
            raise ConnectionAbortedError("interrupted")
        timeout = watch.left if timeout is None else min(timeout, watch.left)
    # A timeout of 0 would mean not to wait at all.
    return None if timeout is None else max(0.001, timeout)


class WatchedStream(httpcore.NetworkStream):
    """A connected socket as httpcore reads and writes it; `direct` unless a proxy is between it and the peer."""

    def __init__(self, connected: socket.socket, *, direct: bool = True) -> None:
        self._socket = connected
        self._direct = direct
        self._joiner = ChunkJoiner()
        self._filled = False
        self._read_at = 0.0
        self._received = 0
        self._unsent = b""
        self._timeout = connected.gettimeout() or 0.0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, of about `max_bytes` at most, its HTTP chunks joined."""
        while received := self._receive(max_bytes, timeout):
            if joined := self._joiner.join(received):
                return joined
        return b""

    def _receive(self, max_bytes: int, timeout: float | None) -> bytes:
        watch = _watch.get()
        most = min(max_bytes, RECEIVE_BYTES)
        if self._unsent:
            # A server may have answered, and hung up, before all was sent.
            with contextlib.suppress(httpcore.WriteError):
                self._flush(timeout)
        with READING:
            # A stream that fills the buffer is faster than any frame.
            rested = watch is not None and not self._filled and watch.rest()
            received: bytes = self._waiting(self._socket.recv, most, timeout)
        if rested and isinstance(self._socket, ssl.SSLSocket):
            received += self._received_meanwhile(self._socket, most - len(received))
        self._filled = len(received) > most // 2
        self._received += len(received)
        self._read_at = time.monotonic()
        return received

    def _received_meanwhile(self, secured: ssl.SSLSocket, most: int) -> bytes:
        """Return the records that have come already: TLS gives one at a time, and a server may write one a token."""
        received = b""
        secured.settimeout(0)
        self._timeout = 0.0
        with contextlib.suppress(OSError):  # none any more; or the end, which the next read meets again
            while len(received) < most and (record := secured.recv(most - len(received))):
                received += record
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`, at the latest when an answer is waited for: a request in one piece, not in three."""
        self._unsent += buffer
        if len(self._unsent) > UNSENT_BYTES:
            self._flush(timeout)

    def _flush(self, timeout: float | None) -> None:
        rest, self._unsent = memoryview(self._unsent), b""
        self._joiner.begin()
        with WRITING:
            while rest:
                rest = rest[self._waiting(self._socket.send, rest, timeout) :]

    def _waiting(self, call: Callable[[Any], Any], argument: object, timeout: float | None) -> Any:
        """Return what a call of the socket gives, when it can; wait as long as `timeout` and the watch allow."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            seconds = _patience(self._socket, None if until is None else until - time.monotonic())
            self._set_timeout(LONGEST_WAIT if seconds is None else min(seconds, LONGEST_WAIT))
            try:
                return call(argument)
            except (TimeoutError, BlockingIOError):
                if seconds is not None and seconds <= LONGEST_WAIT:
                    raise

    def _set_timeout(self, seconds: float) -> None:
        """Let the socket wait for so long; what is set already may be a fiftieth too long."""
        if seconds <= self._timeout <= seconds * LENIENCE:
            return
        self._timeout = seconds
        if isinstance(self._socket, ssl.SSLSocket) or not KERNEL_WAITS:
            self._socket.settimeout(seconds)
            return
        # Python would wait for the socket first and read it then: with many threads each of the two is a fight for
        # the interpreter's lock.
        self._socket.settimeout(None)
        kept = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, kept)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, kept)

    def close(self) -> None:
        """Close the socket; who reads it in another thread is woken."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Return the stream within TLS, its peer verified; the cause of a failure may be a PlainHttpError."""
        with CONNECTING:
            secured = self._socket
            try:
                secured = ssl_context.wrap_socket(
                    self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
                )
                _shake_hands(secured, timeout, asks=self._direct)
            except BaseException:
                secured.close()
                raise
            return WatchedStream(secured, direct=self._direct)

    def get_extra_info(self, info: str) -> Any:
        """Return the socket, the TLS object, or whether the peer has something to read, by httpcore's names.

        What came behind the last answer, and has been read with it, counts too.
        """
        if info == "is_readable":
            is_fresh = time.monotonic() - self._read_at < FRESH_SECONDS
            looks = _is_over(self._socket, self._received) if is_fresh else _is_readable(self._socket)
            return self._joiner.overflows or looks
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        return self._socket if info == "socket" else None


def _is_over(fresh: socket.socket, received: int) -> bool:
    """Say whether the peer has closed a connection, or sent more than the bytes that were received.

    Asking the kernel for its state lets no other thread go ahead.
    """
    state = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_RECEIVED.stop)
    if isinstance(fresh, ssl.SSLSocket):
        return state[0] != TCP_ESTABLISHED or _is_readable(fresh)  # records are more bytes than what is in them
    return state[0] != TCP_ESTABLISHED or int.from_bytes(state[TCP_RECEIVED], sys.byteorder) > received


def _is_readable(idle: socket.socket) -> bool:
    """Say whether an idle connection has something to read: its end, as a rule."""
    if idle.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([idle], [], [], 0)[0])
    poller = select.poll()  # unlike select it takes any number of descriptors
    poller.register(idle, select.POLLIN)
    return bool(poller.poll(0))


def connect(host: str, port: int, timeout: float | None = None, *, direct: bool = True) -> WatchedStream:
    """Return a connection to the first address of `host` that answers; a watch can interrupt it meanwhile."""
    with CONNECTING:
        failure: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in _addresses(host, port):
            connecting = socket.socket(family, kind, protocol)
            try:
                connecting.settimeout(_patience(connecting, timeout))
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connecting.connect(address)
            except OSError as error:
                connecting.close()
                failure = error
            except BaseException:
                connecting.close()
                raise
            else:
                return WatchedStream(connecting, direct=direct)
        raise failure


def _addresses(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a part of it is empty, or longer than 63 characters
        raise OSError("it is no name of a host") from None


class PlainHttpError(ssl.SSLError):
    """The peer speaks plain http where TLS was wanted."""


def _shake_hands(secured: ssl.SSLSocket, timeout: float | None, *, asks: bool = True) -> None:
    """Agree with the peer on TLS; raise PlainHttpError as soon as it is seen that it speaks plain http.

    Where it does it may refuse what it got, hang up, or wait for the end of it as of a request. Unless `asks` is true
    it is not asked: the socket is a proxy's.
    """
    address = secured.getpeername()
    began = time.monotonic()
    seconds = _patience(secured, timeout)
    quiet = QUIET_SECONDS if seconds is None else min(QUIET_SECONDS, seconds / 4)
    secured.settimeout(quiet)
    try:
        secured.do_handshake()
    except ssl.SSLCertVerificationError:
        raise
    except (ssl.SSLError, ConnectionError, TimeoutError) as error:
        if asks and _speaks_http(secured, address, quiet):
            raise PlainHttpError("it speaks plain http") from error
        if not isinstance(error, TimeoutError):
            raise
        secured.settimeout(None if seconds is None else max(0.001, began + seconds - time.monotonic()))
        secured.do_handshake()


def _speaks_http(secured: ssl.SSLSocket, address: Any, seconds: float) -> bool:
    """Say whether a peer answers on another connection to plain http, which holds neither key nor prompt."""
    head = f"HEAD / HTTP/1.1\r\nHost: {secured.server_hostname}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError), socket.socket(secured.family) as probe:
        probe.settimeout(seconds)
        probe.connect(address)
        probe.sendall(head.encode())
        # With 400, or a redirect, servers of https answer to plain http, too.
        return re.match(rb"HTTP/1\.[01] (?!400|3)", probe.recv(16)) is not None
    return False


class _Mapped:
    """Raises the failures of a socket as those of httpcore; a class, for it is entered at every read."""

    def __init__(self, timeout: type[Exception], failure: type[Exception]) -> None:
        self._timeout = timeout
        self._failure = failure

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, (TimeoutError, BlockingIOError)):
            raise self._timeout(str(error)) from error
        if isinstance(error, OSError):
            raise self._failure(str(error)) from error


READING = _Mapped(httpcore.ReadTimeout, httpcore.ReadError)
WRITING = _Mapped(httpcore.WriteTimeout, httpcore.WriteError)
CONNECTING = _Mapped(httpcore.ConnectTimeout, httpcore.ConnectError)


class WatchedTransport(httpx.BaseTransport):
    """An httpx transport over watched connections, which are kept for the next request; without proxies.

    As many as are asked for at once. A connection that is taken is nobody else's until it is put back: httpcore's
    pool may close one that it has just given to another thread (encode/httpcore, issue 1110).
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["http/1.1"])
        self._context = context
        self._lock = threading.Lock()
        self._open: set[httpcore.HTTP11Connection] = set()
        self._idle: list[httpcore.HTTP11Connection] = []  # the one put back last is taken first

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return the response with its body unread."""
        asked = _for_httpcore(request)
        with AS_HTTPX:
            connection = self._taken(asked.url.origin) or self._connected(asked)
            try:
                response = connection.handle_request(asked)
            except BaseException:
                self._put_back(connection)
                raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream, partial(self._put_back, connection)),
            extensions=response.extensions,
        )

    def _taken(self, origin: httpcore.Origin) -> httpcore.HTTP11Connection | None:
        """Return an idle connection to `origin`, and close those that are of no use any more."""
        with self._lock:
            while len(self._idle) > 1 and self._idle[0].has_expired():
                self._discard(self._idle.pop(0))
            for number in reversed(range(len(self._idle))):
                if self._idle[number].can_handle_request(origin):
                    connection = self._idle.pop(number)
                    if not connection.has_expired():
                        return connection
                    self._discard(connection)
        return None

    def _connected(self, asked: httpcore.Request) -> httpcore.HTTP11Connection:
        origin = asked.url.origin
        host = origin.host.decode("ascii")
        timeout = asked.extensions.get("timeout", {}).get("connect")
        stream: httpcore.NetworkStream = connect(host, origin.port, timeout)
        if origin.scheme == b"https":
            stream = stream.start_tls(self._context, host, timeout)
        connection = httpcore.HTTP11Connection(origin, stream, KEPT_SECONDS)
        with self._lock:
            self._open.add(connection)
        return connection

    def _put_back(self, connection: httpcore.HTTP11Connection) -> None:
        with self._lock:
            if connection.is_idle() and connection in self._open:
                self._idle.append(connection)
            else:
                self._discard(connection)

    def _discard(self, connection: httpcore.HTTP11Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close all connections, those that are being read too."""
        with self._lock:
            for connection in list(self._open):
                self._discard(connection)
            self._idle.clear()


class ProxiedTransport(httpx.BaseTransport):
    """An httpx transport over watched connections through one proxy, of http or socks5, to all hosts.

    Raises RuntimeError where socks5 is wanted and its library is not there.
    """

    def __init__(self, context: ssl.SSLContext, proxy: httpx.Proxy) -> None:
        kind = httpcore.HTTPProxy if proxy.url.scheme == "http" else httpcore.SOCKSProxy
        url = proxy.url
        address = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        self._pool = kind(
            address,
            proxy_auth=proxy.raw_auth,
            ssl_context=context,
            keepalive_expiry=KEPT_SECONDS,
            max_connections=None,
            network_backend=_ToProxy(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return the response with its body unread."""
        with AS_HTTPX:
            response = self._pool.handle_request(_for_httpcore(request))
        stream: Any = response.stream
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(stream, _nothing),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _ToProxy(httpcore.NetworkBackend):
    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: object, **__: object
    ) -> httpcore.NetworkStream:
        return connect(host, port, timeout, direct=False)


def _for_httpcore(request: httpx.Request) -> httpcore.Request:
    url = httpcore.URL(
        scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
    )
    return httpcore.Request(
        request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
    )


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any, closed: Callable[[], None]) -> None:
        self._stream = stream
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        with AS_HTTPX:
            yield from self._stream

    def close(self) -> None:
        """Close the answer, once; its connection may be another request's after it."""
        closed, self._closed = self._closed, _nothing
        try:
            self._stream.close()
        finally:
            closed()


def _nothing() -> None:
    pass


class _AsHttpx:
    """Raises httpcore's exceptions as those of httpx, which have the same names."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, FAILURES):
            raise getattr(httpx, type(error).__name__, httpx.TransportError)(str(error)) from error


AS_HTTPX = _AsHttpx()
