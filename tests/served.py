"""`completions-magic serve` as a process of its own, for tests that ask it over sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil

LIMITED = """
import json, sys
from completions_magic.local.server import Limits, make_server
server = make_server("127.0.0.1", 0, limits=Limits(**json.loads(sys.argv[1])))
print(f"listening on http://127.0.0.1:{server.effective_port}/v1", flush=True)
server.run()
"""


class Served:
    """A process that serves, from its line "listening on" to its end."""

    def __init__(self, *arguments, limits=None, **variables):
        command = ["-m", "completions_magic", "serve"] if limits is None else ["-c", LIMITED, json.dumps(limits)]
        self.process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.line = self.process.stdout.readline()
        self.base_url = self.line.removeprefix("listening on ").strip()
        self.port = httpx.URL(self.base_url).port if self.base_url else None

    def http(self, key=None):
        """Return an HTTP client of this server."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Plain http: there are no certificates to verify, and none to read.
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=20, trust_env=False, verify=False)

    def connect(self):
        """Return a bare connection to this server."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def connect_slowly(self):
        """Return a bare connection that takes in only a few kilobytes until it is read."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def say(self, content):
        """Send `content` on a connection of its own; return all that comes back until the server closes it."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # it may refuse, and hang up, before it has read all
                connection.sendall(content)
            return receive(connection)

    def wait_until_busy(self):
        """Return as soon as the process has computed for a twentieth of a second."""
        process = psutil.Process(self.process.pid)
        enough = process.cpu_times().user + 0.05
        until = time.monotonic() + 10
        while process.cpu_times().user < enough:
            assert time.monotonic() < until, "it does nothing"
            time.sleep(0.005)

    def size(self):
        """Return how many threads and descriptors the process has, and how many bytes of memory."""
        process = psutil.Process(self.process.pid)
        return process.num_threads(), process.num_fds(), process.memory_info().rss

    def rests(self):
        """Say whether the process computes nothing for a fifth of a second."""
        return psutil.Process(self.process.pid).cpu_percent(0.2) < 30

    def end(self, number=signal.SIGTERM):
        """Send a signal, wait for the end; return the exit status and what else was said on stdout and stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def close(self):
        """End the process, whatever it does."""
        self.process.kill()
        self.process.communicate()


def receive(connection):
    """Return all that comes on `connection` until its end."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


@contextlib.contextmanager
def serving(*arguments, **more):
    """Serve for one test; `limits` are other ones than the command's."""
    served = Served(*arguments, **more)
    try:
        yield served
    finally:
        served.close()


def check_error(content, param=None):
    """Check that `content` is an error object of the public specification."""
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["param"] == param
    assert "Traceback" not in error["message"]


def head(lines):
    """Return the head of a POST with these further lines."""
    return f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n".encode()


def post(body):
    """Return a POST of `body`, which is JSON or is to be."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(f"Content-Type: application/json\r\nContent-Length: {len(content)}") + content
