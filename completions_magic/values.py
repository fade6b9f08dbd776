"""A widget whose state is plain values under names; importing widgets takes 45 ms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget

STATIC = Path(__file__).parent / "static"


class Values(anywidget.AnyWidget):
    """Sends the values that `put` changes, and no others, to the page.

    Any value under a name of its own travels alone, once, and yet a view that opens late, or again after a
    reload, gets everything.
    """

    def __init__(self, *, model_id: str | None = None, **values: Any) -> None:
        self._values: dict[str, Any] = values
        super().__init__(**({} if model_id is None else {"model_id": model_id}))
        # ipykernel 7.4 routes replies to the shell that last sent on the comm, which may be a busy one.
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = None  # noqa: SLF001  # no public way; guarded

    def put(self, **values: Any) -> None:
        """Set values; send those that are new, all in one message."""
        new = {name: value for name, value in values.items() if self._values.get(name) != value}
        self._values.update(new)
        if new:
            self.send_state(set(new))

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002  # ipywidgets' own signature
        """Return the widget's state, or the part of it that `key` names."""
        asked = None if key is None else {key} if isinstance(key, str) else set(key)
        ours = {name: value for name, value in self._values.items() if asked is None or name in asked}
        theirs = None if asked is None else asked - set(ours)
        return {**(super().get_state(theirs, drop_defaults) if theirs is None or theirs else {}), **ours}
