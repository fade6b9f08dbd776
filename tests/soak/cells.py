"""What a person's cells ask, one after another, and how they are run."""

import itertools
import random
from queue import Empty

from conftest import eventually
from kernel import Kernel, ends

from completions_magic import errors

from .server import SoakServer

WIDGET = "application/vnd.jupyter.widget-view+json"
FAILURES = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
"""What a fault may come to in a cell; anything else is a fault of ours."""

PATIENCE = 3.0

SETTING = """
import asyncio, contextlib, ctypes, gc
import comm, completions_magic
from completions_magic.extension import CompletionsMagics
rows = [f"row {at}" for at in range(16)]
waits = completions_magic.no_waits()
waits.__enter__()
%config CompletionsMagics.base_url = "{base_url}"
%config CompletionsMagics.model = "m"
%config CompletionsMagics.retries = 1
%config CompletionsMagics.timeout = 0.25
%config CompletionsMagics.first_token_timeout = 0.25
"""

CELLS = {
    "%%complete -o it\nOnce": 30,
    "%%complete -o it\nOnce, slowly": 3,
    "%%complete -o it -n 2 --logprobs 2\nOnce": 10,
    "%%complete -o it --no-stream\nOnce": 10,
    "%%complete -o it -q\nOnce": 20,
    "%%complete -q --as text --extract '(?P<first>.+)'\nOnce": 5,
    "%%complete -o it --view text\nOnce": 10,
    "%%complete -o it --view text -n 2\nOnce": 5,
    "it = %complete --logprobs 1 Once": 10,
    "%%complete -i rows -o batch\n{{ row }}": 3,
    "%%complete -i rows -o batch -q --pack 4\n{{ row }}": 1,
    "%%complete -o grid --sweep temperature=0,1 --sweep top_p=0.5,1\nOnce": 2,
    "%%complete --bg -o late\nOnce": 5,
}
"""Cells, and how often each comes among a hundred or so."""


class Person:
    """Runs cells in a kernel, in an order that is the same in every run; counts what came of them."""

    def __init__(self, kernel: Kernel, server: SoakServer):
        self.cells = 0
        self.failed = 0
        self.pressed_again = 0
        self._kernel = kernel
        self._server = server
        every = [cell for cell, often in CELLS.items() for _ in range(often)]
        ways = [
            *((self._run, cell) for cell in every),
            (self._stop,),
            (self._interrupt,),
            (self._tune,),
            (self._branch,),
        ]
        random.Random(7).shuffle(ways)
        self._ways = itertools.cycle(ways)
        self._run(SETTING.replace("{base_url}", server.base_url))

    def go_on(self):
        """Run the next cell."""
        way, *given = next(self._ways)
        way(*given)
        self._kernel.said.clear()

    def _run(self, cell, **how):
        self._note(self._kernel.run(cell, watched=True, **how)[0])
        if "--bg" in cell:
            self._note(self._kernel.run("Out[max(Out)].wait(20)")[0])

    def _note(self, reply):
        self.cells += 1
        if reply["status"] == "error":
            self.failed += 1
            assert reply["ename"] in FAILURES, reply

    def _begin(self):
        """Begin a cell whose answer does not end; return it, and the area that shows it."""
        self._server.waiting.clear()
        request = self._kernel.start("%%complete -o it --timeout 60\nwait", watched=True)
        shown = self._kernel.hear(lambda message: message["msg_type"] == "display_data")
        assert self._server.waiting.wait(20)
        return request, shown["content"]["data"][WIDGET]["model_id"]

    def _stop(self):
        request, area = self._begin()
        self._kernel.press_stop(area)
        self._note(self._kernel.finish(request)[0])

    def _interrupt(self):
        """Interrupt a cell; press again where Python has lost the first, as it may within a finalizer."""
        request, _ = self._begin()
        self._kernel.interrupt()
        while not self._ends(request):
            self.pressed_again += 1
            self._kernel.interrupt()
        reply = self._kernel.reply(request)
        assert reply["ename"] == "Interrupted"
        self._note(reply)

    def _ends(self, request):
        try:
            return self._kernel.hear(lambda message: ends(message, request), PATIENCE)
        except Empty:
            return None

    def _tune(self):
        """Run one cell again that opens the tuner, which asks by itself."""
        asked = self._server.requests
        self._run("%%complete --tune -o it\nOnce", cell_id="tuner")
        assert eventually(lambda: self._server.requests > asked)

    def _branch(self):
        """Run one cell again that opens the token view, each time of another answer."""
        self._run(f"it = %complete --logprobs 2 Once, {self.cells}")
        self._run("it.tokens()", cell_id="tokens")
