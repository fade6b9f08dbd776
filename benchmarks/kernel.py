"""A real kernel: cells run in it, and what it spends and sends is counted."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import zmq
from jupyter_client.manager import KernelManager

PATIENCE = 180
QUIET = 0.2


PLAIN = Path(__file__).parents[1] / ".venv-plain" / "bin" / "python"
"""Python where only this package and what it needs is installed."""


class Kernel:
    """A kernel of `python` with a subscriber of its own on what it publishes, as a context."""

    def __init__(self, python: str | Path = sys.executable) -> None:
        self._python = str(python)
        self.messages = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._manager = KernelManager(transport="tcp")
        self._manager.kernel_spec.argv[0] = self._python
        self._manager.start_kernel(cwd=self._folder.name, env={**os.environ, "IPYTHONDIR": self._folder.name})
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.subscribe(b"")
        self._socket.connect(f"tcp://127.0.0.1:{self._client.get_connection_info()['iopub_port']}")
        self._ended = threading.Event()
        self._counting = threading.Thread(target=self._count, daemon=True)
        self._counting.start()
        self.run("import sys, time")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._counting.join()
        self._socket.close()
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._folder.cleanup()

    def _count(self) -> None:
        while not self._ended.is_set():
            if self._socket.poll(100):
                self.bytes += sum(map(len, self._socket.recv_multipart()))
                self.messages += 1

    def quiet(self) -> tuple[int, int]:
        """Return bytes and messages so far, once no more of them come."""
        seen = -1
        while seen != self.messages:
            seen = self.messages
            time.sleep(QUIET)
        return self.bytes, self.messages

    def run(self, code: str, **wanted: str) -> dict[str, Any]:
        """Run a cell as a person's page would; return the values of the expressions `wanted`."""
        asked = self._client.execute(code, user_expressions=wanted, allow_stdin=True)
        while True:
            reply = self._client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == asked:
                break
        content = reply["content"]
        assert content["status"] == "ok", content
        return {
            name: ast.literal_eval(value["data"]["text/plain"]) for name, value in content["user_expressions"].items()
        }

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the kernel has spent."""
        return float(self.run("", cpu="time.process_time()")["cpu"])
