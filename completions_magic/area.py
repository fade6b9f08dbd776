"""The live area's widget; imported only where a notebook shows one, since widgets take 45 ms to import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
from IPython.core.getipython import get_ipython

STATIC = Path(__file__).parent / "static"


class Area(anywidget.AnyWidget):
    """A pane a choice, a bar, and a Stop button; `on_stop` is called, from another thread, when it is pressed.

    The state is plain values under names, so that a page of text which is full has a name of its own and
    travels once, and yet a view that opens late, or again after a reload, gets everything.
    """

    _esm = (STATIC / "area.js").read_text("utf-8")
    _css = (STATIC / "area.css").read_text("utf-8")

    def __init__(self, labels: list[str], on_stop: Callable[[], None]) -> None:
        self._values: dict[str, Any] = {"labels": labels, "meters": {}}
        super().__init__()
        self._on_stop = on_stop
        self.on_msg(self._hear)
        _hear_while_busy(self.comm)
        self.put(comm=self.model_id)

    def put(self, **values: Any) -> None:
        """Set values; send those that are new, all in one message."""
        new = {name: value for name, value in values.items() if self._values.get(name) != value}
        self._values.update(new)
        if new:
            self.send_state(set(new))

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002  # ipywidgets' own signature
        """Return the widget's state, or the part of it that `key` names."""
        names = set(self._values) if key is None else ({key} if isinstance(key, str) else set(key)) & set(self._values)
        ours = {name: self._values[name] for name in names}
        theirs = None if key is None else ({key} if isinstance(key, str) else set(key)) - names
        return {**(super().get_state(theirs, drop_defaults) if theirs is None or theirs else {}), **ours}

    def close(self) -> None:
        """Close the area, its layout too, and take back what let it hear."""
        _hear_no_more()
        self.layout.close()
        super().close()

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("stop") is True:
            self._on_stop()


def _hear_while_busy(comm: Any) -> None:
    """Let the front end's messages reach the area while a cell runs."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return
    # The control channel has a thread of its own in every ipykernel; comms just have no handler there.
    kernel.control_handlers.setdefault("comm_msg", kernel.comm_manager.comm_msg)
    # ipykernel 7.4 routes replies to the shell that last sent on the comm, which is the busy one.
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = None  # noqa: SLF001  # no public way; guarded


def _hear_no_more() -> None:
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is not None:
        kernel.control_handlers.pop("comm_msg", None)
