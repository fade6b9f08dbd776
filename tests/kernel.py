"""A kernel for the tests, and a front end of it."""

import json
import os
from pathlib import Path

from jupyter_client.manager import KernelManager


class Kernel:
    """A kernel and a front end of it; `said` is every message of its iopub channel."""

    def __init__(self, folder: Path, **environment):
        alone = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        places = {"IPYTHONDIR": str(folder / "ipython"), "XDG_CONFIG_HOME": str(folder / "config")}
        self.said = []
        self._log = (folder / "kernel.log").open("wb")
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(
            env={**alone, **places, **environment}, cwd=str(folder), stdout=self._log, stderr=self._log
        )
        self.client = self._manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.run("%load_ext completions_magic")

    def close(self):
        """End the kernel and wait for it."""
        self.client.stop_channels()
        self._manager.shutdown_kernel()
        self._log.close()

    def start(self, cell, *, watched=False, cell_id=None):
        """Begin to run `cell`; a watched one comes from a front end that would ask a person for input."""
        content = {"code": cell, "silent": False, "store_history": True, "allow_stdin": watched, "stop_on_error": True}
        metadata = {} if cell_id is None else {"cellId": cell_id}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def hear(self, condition, seconds=20):
        """Return the next message that `condition` holds for; fail after `seconds` of silence."""
        while True:
            message = self.client.get_iopub_msg(timeout=seconds)
            self.said.append(message)
            if condition(message):
                return message

    def finish(self, request):
        """Return the reply to `request` and what was said about it."""
        self.hear(lambda message: ends(message, request))
        return self.reply(request), [message for message in self.said if about(message, request)]

    def reply(self, request):
        """Return the reply to `request`, which has ended."""
        while not about(reply := self.client.get_shell_msg(timeout=20), request):
            pass
        return reply["content"]

    def run(self, cell, **how):
        """Run `cell`; return the reply and what was said about it."""
        return self.finish(self.start(cell, **how))

    def value(self, expression):
        """Return what `expression`, of a JSON value, is in the kernel."""
        reply, said = self.run(f"import json; print(json.dumps({expression}))")
        assert reply["status"] == "ok", reply
        return json.loads("".join(message["content"]["text"] for message in of(said, "stream")))

    @property
    def pid(self):
        """The kernel's process."""
        return self._manager.provisioner.process.pid

    def interrupt(self):
        """Press the interrupt button."""
        self._manager.interrupt_kernel()

    def press_stop(self, comm):
        """Press the live area's Stop button."""
        content = {"comm_id": comm, "data": {"method": "custom", "content": {"stop": True}}}
        self.client.control_channel.send(self.client.session.msg("comm_msg", content))


def about(message, request):
    """Say whether a message is about the cell that `request` runs."""
    return message["parent_header"].get("msg_id") == request


def ends(message, request):
    """Say whether a message is the last about a cell."""
    return about(message, request) and message["content"].get("execution_state") == "idle"


def of(said, kind):
    """Return the messages of one kind."""
    return [message for message in said if message["msg_type"] == kind]
