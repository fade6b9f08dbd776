"""Real servers on loopback for the tests: a scripted one, and the embedded endpoint."""

import atexit
import contextlib
import json
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.connect import LocalPortCache
from ports import port_to_bind_later
from traitlets.config import Config

from completions_magic import Client, load_ipython_extension, no_waits, unload_ipython_extension


def eventually(condition, seconds=10.0):
    """Say whether `condition` comes true in time: for what another thread or process does and tells nobody."""
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.01)
    return holds  # as it was found, and not asked once more: what has come true may have passed


def at_call(function, then):
    """Do `then` right before this thread calls `function`, of Python or of C, for the first time."""
    code = getattr(function, "__code__", None)

    def profile(frame, what, called):
        by_python = what == "call" and frame.f_code is code
        if by_python or (what == "c_call" and called.__qualname__ == function.__qualname__):
            sys.setprofile(None)
            then()

    sys.setprofile(profile)


@dataclass
class Heard:
    """One request as the server heard it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class ScriptedServer:
    """A socket server that answers each request with the next script; the last one again and again.

    A script is bytes to send, or a function that gets the open socket and writes to it. `heard` are the
    requests, and `current`, in a script, is the one that it answers; `gone` is set when a client has hung up on a script
    that called `wait_until_gone`.
    """

    scripts: list[bytes | Callable[[socket.socket], None]] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.origin}/v1"
        self._open = []
        self._lock = threading.Lock()
        self._here = threading.local()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def current(self) -> Heard:
        """The request that this thread answers."""
        return self._here.heard

    def script(self, _heard: Heard) -> bytes | Callable[[socket.socket], None]:
        """Return what answers a request that was just heard."""
        return self.scripts[min(len(self.heard), len(self.scripts)) - 1]

    def client(self, **settings) -> Client:
        """Return a client of this server."""
        return Client(base_url=self.base_url, **{"model": "m", "timeout": 30.0, **settings})

    def wait_until_gone(self, connection: socket.socket):
        """Read until the client closes the connection, then set `gone`."""
        try:
            while connection.recv(65536):
                pass
        except OSError:
            pass
        self.gone.set()

    def close(self):
        """Stop listening and hang up."""
        for open_socket in (self._listener, *self._open):
            # Closing alone wakes nobody: the thread that waits in it would stay, and the descriptor that it holds.
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket):
        try:
            with connection:
                while (heard := self._read(connection)) is not None:
                    self._here.heard = heard
                    with self._lock:  # of two that come at once each gets a script of its own
                        self.heard.append(heard)
                        script = self.script(heard)
                    if callable(script):
                        script(connection)
                        return
                    connection.sendall(script)
        except OSError:
            pass

    def _read(self, connection: socket.socket) -> Heard | None:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                return None
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            piece = connection.recv(65536)
            if not piece:
                return None
            body += piece
        method, path, _ = first.split(" ")
        return Heard(method, path, headers, body)


class TlsServer(ScriptedServer):
    """The scripted server behind a certificate that it has signed itself."""

    def __init__(self, pem, scripts):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        super().__init__(scripts)
        self.base_url = f"https://127.0.0.1:{self.port}/v1"

    def _talk(self, connection):
        try:
            wrapped = self._context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
        else:
            super()._talk(wrapped)


class PlainServer(ScriptedServer):
    """A server that answers whatever is no http with a refusal: in plain http, without a head as in http 0.9, or none."""

    def __init__(self, refusal=None):
        self.refusal = answer(b"", status="400 Bad Request") if refusal is None else refusal
        super().__init__([answer(b"", status="404 Not Found")])

    def _read(self, connection):
        if connection.recv(4, socket.MSG_PEEK) in (b"HEAD", b"POST"):
            return super()._read(connection)
        connection.recv(65536)
        connection.sendall(self.refusal)
        return None


@contextlib.contextmanager
def port_that_is_closed():
    """Give a port that nobody listens on, and nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def port_that_is_full():
    """Give a port whose queue is full, so that the next connection hangs while it is made."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        probe = sockets.enter_context(socket.socket())
        probe.settimeout(0.2)
        with pytest.raises(TimeoutError):
            probe.connect(listener.getsockname())
        yield listener.getsockname()[1]


def answer(body: bytes | dict, *, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    """Return a whole HTTP answer with a length."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def stream_head(kind: str = "text/event-stream") -> bytes:
    """Return the head of a chunked stream."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def piece(content: bytes) -> bytes:
    """Return one HTTP chunk."""
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


END = b"0\r\n\r\n"


def event(text: str = "", *, index: int = 0, reason: str | None = None, **more) -> bytes:
    """Return one event of a completion stream."""
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def stream(events: Iterable[bytes]) -> bytes:
    """Return a whole chunked stream, one HTTP chunk an event."""
    return stream_head() + b"".join(piece(one) for one in events) + END


def says(*parts):
    """Return a script that sends bytes, waits for events, and hands the connection to functions; then hangs up."""

    def script(connection):
        for part in parts:
            if isinstance(part, bytes):
                connection.sendall(part)
            elif isinstance(part, threading.Event):
                part.wait(5)
            else:
                part(connection)

    return script


def again(part, *, every, seconds=4.0):
    """Return a script's part that sends `part` again and again, until the client goes or the time is over."""
    return each([part] * round(seconds / every), every=every)


def byte_by_byte(content, *, framed=True):
    """Return a script's part that sends `content` one byte at a time, each an HTTP chunk of its own or bare."""
    single = [bytes([byte]) for byte in content]
    return each(map(piece, single) if framed else single, every=0.05)


def each(parts, *, every):
    """Return a script's part that sends `parts` with a pause after each, until the client goes."""

    def send(connection):
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(every)

    return send


def reset(connection):
    """Break the connection with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# How long an example takes, or how many are drawn in vain, says how busy the machine is and how the dice fell.
UNHURRIED = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
# The same examples each time: new ones are looked for by `make fuzz`, and not while somebody waits for a verdict.
settings.register_profile("unhurried", derandomize=True, **UNHURRIED)
settings.register_profile("fuzz", max_examples=10_000, **UNHURRIED)
settings.load_profile("unhurried")

# A run that was started in the background ignores interrupts, and so would every kernel and terminal of its tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A kernel binds its ports when it is up.
LocalPortCache.find_available_port = lambda _cache, ip: port_to_bind_later(ip)

HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Give a scripted server on loopback."""
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port that nobody listens on."""
    with port_that_is_closed() as port:
        yield port


@pytest.fixture
def full_port() -> Iterator[int]:
    """Give a port whose queue is full, so that the next connection hangs while it is made."""
    with port_that_is_full() as port:
        yield port


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Let no setting of the person who runs the tests leak in, and retries not wait."""
    for name in (
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    with no_waits():
        yield


class Cells:
    """The cells of a shell, and the scripted server that they ask; `where` are the options that name it."""

    def __init__(self, shell, server):
        self.shell = shell
        self.server = server
        self.names = shell.user_ns
        self.heard = server.heard
        self.where = f"-m m --base-url {server.base_url}"

    def run(self, cell, *, silent=False):
        """Run `cell` as if it were typed."""
        return self.shell.run_cell(cell, store_history=not silent, silent=silent)

    def ask(self, prompt, options=""):
        """Run a `%%complete` cell that asks the server."""
        return self.run(f"%%complete {self.where} {options}\n{prompt}")


@contextlib.contextmanager
def new_shell() -> Iterator[InteractiveShell]:
    """Give a shell with the extension, and with neither history nor colours."""
    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    config = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})
    shell = InteractiveShell.instance(config=config)
    load_ipython_extension(shell)
    yield shell
    unload_ipython_extension(shell)
    InteractiveShell.clear_instance()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"] = main


@pytest.fixture
def cells(server):
    """Return the cells of a shell that ask the scripted server."""
    server.scripts = [HELLO]
    with new_shell() as shell:
        yield Cells(shell, server)
