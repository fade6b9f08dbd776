"""A widget in the place of static HTML: the saved output is never a widget, and never dead."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import display, update_display

from .audience import is_watched
from .values import STATIC, Values

DIGITS = 12


class Slot(Values):
    """Shows `plain()` and `html()` as its output; where a page runs widgets, a view takes the HTML's place.

    To make one, say what it shows without a page, and give it a module that shows the rest:

        class Panel(Slot):
            kind, _esm, _css = "panel", script("panel.js"), style("panel.css")
            def plain(self) -> str: ...  # and html(), safe and static: all that a saved file holds
        Panel(request.encode(), knobs=[1, 2])  # then put(knobs=...) for the page, and refresh() for the file

    panel.js ends with `export default { initialize: inSlots(show) };`, where show(model, root) builds the view in
    the element `root` and returns the function that ends it; it is called once for every place that shows the
    output. See slot.js for what a view gets there. `subject` is what the output is about: the output of the same
    cell about the same subject is the same, to the byte, whenever it is run.
    """

    kind = "slot"

    def __init__(self, subject: bytes, **values: Any) -> None:
        digest = hashlib.sha256(subject).hexdigest()[:DIGITS]
        self._name = f"completions-{self.kind}-{digest}-{_ordinals.next((self.kind, digest))}"
        before = _slots.get(self._name)
        if before is not None:
            before.close()
        _slots[self._name] = self
        _close_earlier(self)
        self._shown: dict[str, str] | None = None
        super().__init__(slot=self._name, edition=0, **values)
        self.on_msg(self._answer)

    def plain(self) -> str:
        """Return what the output is as text/plain."""
        raise NotImplementedError

    def html(self) -> str:
        """Return what the output is as HTML: inert, and whole without the view."""
        raise NotImplementedError

    def metadata(self) -> dict[str, Any]:
        """Return the output's metadata."""
        return {}

    def refresh(self) -> None:
        """Write what the output is by now into the notebook, if it has changed."""
        if self._shown is not None and self._shown != self._bundle():
            self._shown = self._bundle()
            update_display(self._shown, raw=True, metadata=self.metadata(), display_id=self._name)
            self.put(edition=self._values["edition"] + 1)

    def open(self) -> None:
        """Tell the page of the widget; where nobody looks there is none, and no widget comes into the file."""
        kernel = getattr(get_ipython(), "kernel", None)
        if kernel is not None and is_watched(kernel):
            super().open()

    @traitlets.default("keys")
    def _synced(self) -> list[str]:
        # A layout would be a widget of its own in the page, and a slot has none.
        return [name for name in self.traits(sync=True) if name != "layout"]

    def _bundle(self) -> dict[str, str]:
        # What looks like mathematics is none.
        return {
            "text/plain": self.plain(),
            "text/html": f'<div class="{self._name} mathjax_ignore tex2jax_ignore">{self.html()}</div>',
        }

    def _answer(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Give what the file is to hold to a page that the update has not reached."""
        if content == {"bundle": True} and self._shown is not None:
            self.send({"bundle": self._shown})

    def _ipython_display_(self) -> None:
        # An execute result has no display_id, and what has none cannot be refreshed.
        self._shown = self._bundle()
        display(self._shown, raw=True, metadata=self.metadata(), display_id=self._name)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return self._bundle(), self.metadata()


class Ordinals:
    """Numbers the slots about one subject; a cell that runs again gets the numbers that it had."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._next: Counter[Hashable] = Counter()
        self._here: Counter[Hashable] = Counter()
        self._run = ""

    def next(self, subject: Hashable) -> int:
        """Return the number of the next slot about `subject` in the cell that is running."""
        cell, run = _running()
        if run != self._run:
            self._run, self._here = run, Counter()
        self._here[subject] += 1
        place = (subject, cell or object(), self._here[subject])
        if place not in self._known:
            self._known[place] = self._next[subject]
            self._next[subject] += 1
        return self._known[place]


def _running() -> tuple[str, str]:
    """Return the ids of the cell, where the front end tells it, and of its present run."""
    kernel = getattr(get_ipython(), "kernel", None)
    parent = {} if kernel is None else kernel.get_parent("shell")
    return parent.get("metadata", {}).get("cellId") or "", parent.get("header", {}).get("msg_id", "")


def _close_earlier(made: Slot) -> None:
    """Close what an earlier run of the cell that is running has made: its output is gone, whatever it was about."""
    cell, run = _running()
    if not cell:
        return
    earlier = _made.get(cell)
    if earlier is None or earlier[0] != run:
        _made[cell] = run, WeakSet()
        for slot in earlier[1] if earlier else ():
            slot.close()
    _made[cell][1].add(made)


_made: dict[str, tuple[str, WeakSet[Slot]]] = {}
"""The last run of every cell, and the slots that it has made."""
_ordinals = Ordinals()
_slots: WeakValueDictionary[str, Slot] = WeakValueDictionary()


def script(*names: str) -> str:
    """Return the text of a slot's module: slot.js, and after it these files."""
    return "".join((STATIC / name).read_text("utf-8") for name in ("slot.js", *names))


def style(name: str) -> str:
    """Return the text of a slot's style sheet: slot.css, and after it the file `name`."""
    return "".join((STATIC / part).read_text("utf-8") for part in ("slot.css", name))
