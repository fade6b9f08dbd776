"""The live area's widget; imported only where a notebook shows one, since widgets take 45 ms to import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from IPython.core.getipython import get_ipython

from .values import STATIC, Values


class Area(Values):
    """A pane a choice, a bar, and a Stop button; `on_stop` is called, from another thread, when it is pressed.

    A page of text that is full has a name of its own among the values, so that it travels once.
    """

    _esm = (STATIC / "area.js").read_text("utf-8")
    _css = (STATIC / "area.css").read_text("utf-8")

    def __init__(self, labels: list[str], on_stop: Callable[[], None], **values: Any) -> None:
        # Chosen here, so that the page hears of it with the rest, and not in a message of its own.
        model_id = uuid4().hex
        super().__init__(model_id=model_id, comm=model_id, labels=labels, **values)
        self._on_stop = on_stop
        self.on_msg(self._hear)
        _open.add(self.model_id)
        _hear_while_busy()

    def close(self) -> None:
        """Close the area, its layout too; the last one takes back what let it hear."""
        if self.comm is None:
            return  # it is closed: ipywidgets closes what is collected, which may be while another area is open
        _open.discard(self.model_id)
        if not _open:
            _hear_no_more()
        self.layout.close()
        super().close()

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("stop") is True:
            self._on_stop()


_open: set[str] = set()
"""The areas that are to hear."""


def _hear_while_busy() -> None:
    """Let the front end's messages reach the area while a cell runs."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is not None:
        # The control channel has a thread of its own in every ipykernel; comms just have no handler there.
        kernel.control_handlers.setdefault("comm_msg", kernel.comm_manager.comm_msg)


def _hear_no_more() -> None:
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is not None:
        kernel.control_handlers.pop("comm_msg", None)
