"""Show a growing completion: in a notebook's live area, in a terminal, or not at all."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self, TextIO

from .inert import inert, one_line
from .record import footer

if TYPE_CHECKING:
    from .area import Area
    from .schema import Completion

FLUSH_SECONDS = 0.04
"""The kernel's server drops messages beyond 1,000 a second, so the area is set by time and never by token."""
COMMIT_CHARACTERS = 2048


class View:
    """Shows nothing; the base of the others. Used as a context: entered before the request, left when it has ended."""

    shows_result = False
    """True where the view itself leaves the result on screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, chunk: Completion) -> None:
        """Show what came."""

    def say(self, line: str) -> None:
        """Show one line about what is going on."""

    def end(self, completion: Completion) -> None:
        """Show how it ended."""


class TerminalView(View):
    """Streams to a text file: the first choice as it comes, the others after it, so that no texts mix."""

    shows_result = True

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout

    def add(self, chunk: Completion) -> None:
        """Write the first choice's new text."""
        for choice in chunk.choices:
            if choice.index == 0:
                self._write(inert(choice.text))

    def say(self, line: str) -> None:
        """Write one line."""
        self._write(f"[{one_line(line)}]\n")

    def end(self, completion: Completion) -> None:
        """Write the other choices, each under its number, and the footer."""
        for choice in completion.choices:
            if choice.index > 0:
                self._write(f"\n[{choice.index + 1}/{len(completion.choices)}]{inert(choice.text)}")
        self._write(f"\n({footer(completion)})\n")

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class NotebookView(View):
    """Streams into a live area that is gone when the cell has ended; the record takes its place.

    The text travels in traits, committed text and tail, set together: messages would be lost before the
    area has loaded, after a reload and in a second view.
    """

    def __init__(self, *, clears: bool = True) -> None:
        self._clears = clears
        self._area: Area | None = None
        self._new: defaultdict[int, list[str]] = defaultdict(list)
        self._status = "waiting for the first token …"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="completions-area", daemon=True)

    def __enter__(self) -> Self:
        from IPython.display import display

        from .area import Area

        self._area = Area(status=self._status)
        # The widget alone: a text beside it would stay in the saved file.
        reference = {"version_major": 2, "version_minor": 0, "model_id": self._area.model_id}
        display({"application/vnd.jupyter.widget-view+json": reference}, raw=True)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        from IPython.display import clear_output

        self._ended.set()
        self._ticker.join()
        self._flush()
        if self._clears:
            clear_output(wait=True)
        if self._area is not None:
            self._area.close()

    def add(self, chunk: Completion) -> None:
        """Keep the new text for the next flush."""
        with self._lock:
            self._status = ""
            for choice in chunk.choices:
                if 0 <= choice.index < 1024:
                    self._new[choice.index].append(inert(choice.text))

    def say(self, line: str) -> None:
        """Show one line below the text."""
        with self._lock:
            self._status = one_line(line)

    def _tick(self) -> None:
        while not self._ended.wait(FLUSH_SECONDS):
            self._flush()

    def _flush(self) -> None:
        area = self._area
        with self._lock:
            new, self._new, status = self._new, defaultdict(list), self._status
        if area is None or (not new and status == area.status):
            return
        count = max([len(area.texts), *(index + 1 for index in new)])
        texts = [*area.texts, *[""] * (count - len(area.texts))]
        tails = [*area.tails, *[""] * (count - len(area.tails))]
        for index, pieces in new.items():
            tails[index] += "".join(pieces)
            if len(tails[index]) > COMMIT_CHARACTERS:
                texts[index] += tails[index]
                tails[index] = ""
        with area.hold_sync():
            area.texts, area.tails, area.status = texts, tails, status


def choose_view(shell: Any, *, quiet: bool, whole_cell: bool) -> View:
    """Return the view that suits where the cell runs; `whole_cell` is false inside loops and expressions."""
    if quiet or not whole_cell:
        return View()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return TerminalView()
    return NotebookView() if _is_watched(kernel) else View()


def _is_watched(kernel: Any) -> bool:
    """Say whether a person's front end runs the cell: those that execute notebooks in a file allow no input."""
    content = kernel.get_parent("shell").get("content", {})
    return bool(content.get("allow_stdin", False))
