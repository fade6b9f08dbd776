"""Show a growing completion: in a notebook's live area, in a terminal, or not at all."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TextIO

from IPython.display import clear_output, display
from msgspec import UNSET

from .audience import is_watched
from .inert import inert, one_line
from .record import footer, in_words, labels, plain
from .schema import KNOBS, Choice, Completion, CompletionRequest

if TYPE_CHECKING:
    from rich.console import Console, Group

    from .area import Area

FLUSH_SECONDS = 0.05
"""The kernel's server drops messages beyond 1,000 a second, so the area is set by time and never by token."""
LEAST_SECONDS = 0.9 * FLUSH_SECONDS
"""Text is read once in FLUSH_SECONDS: a little less between two updates, so that none has to wait for its turn."""
NEWS, END = True, False
PAGE_CHARACTERS = 512
"""A full page is sent once, the tail 20 times a second: this keeps both small at any length."""
VIEWS = ("auto", "widget", "text", "none")
MOST_PANES = 1024
FRAMES_A_SECOND = 12
SEEN_CHARACTERS = 4096
"""A terminal's pane shows the end of its text: no more of it is kept."""
RATE_SECONDS = 0.5
"""How long tokens must have come before their rate says anything."""


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

    def dispose(self) -> None:
        """Let go of what was only needed while the answer came."""


class TerminalView(View):
    """Streams plain text: the first choice as it comes, the others whole after it, so that no texts mix."""

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


class PanesView(TerminalView):
    """Shows several choices as they grow, each in a pane of its own, and then the record in their place."""

    def __init__(
        self, request: CompletionRequest, names: Sequence[str] | None = None, file: TextIO | None = None
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(file)
        self._labels = list(names or _labels(request))
        self._texts: defaultdict[int, str] = defaultdict(str)
        console = Console(file=self._file, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=console,
            get_renderable=lambda: draw(self._labels, dict(self._texts), console),
            refresh_per_second=FRAMES_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def add(self, chunk: Completion) -> None:
        """Keep the new text for the next frame."""
        for choice in chunk.choices:
            self._texts[choice.index] = (self._texts[choice.index] + inert(choice.text))[-SEEN_CHARACTERS:]

    def say(self, line: str) -> None:
        """Write one line above the panes."""
        self._live.console.out(f"[{one_line(line)}]")

    def end(self, completion: Completion) -> None:
        """Write the record."""
        self._write(f"{plain(completion)}\n")


def draw(names: Sequence[str], texts: Mapping[int, str], console: Console) -> Group:
    """Return a frame: each choice's name and the last of its lines, as many as the terminal has room for."""
    from rich.console import Group
    from rich.text import Text

    room = max(1, console.height - 2)
    each = max(1, room // len(names) - 1)
    rows: list[Text] = []
    for at, name in enumerate(names[:room]):
        text = Text(texts.get(at, "").rstrip("\n"))
        title = Text(f"[{name}]", "bold")
        if room < 2 * len(names):
            # No room for a pane each: a line each.
            rows.append(Text(f"[{name}] {one_line(texts.get(at, ''), SEEN_CHARACTERS)[-console.width :]}"))
            rows[-1].truncate(console.width, overflow="ellipsis")
            continue
        rows += [title, *text.wrap(console, console.width)[-each:]]
    return Group(*rows)


class NotebookView(View):
    """Streams into a live area that is gone when the cell has ended; the record takes its place.

    Text travels as state and not as messages, which would be lost before the area has loaded, after a reload
    and in a second view: a page that is full is sent once, the tail again and again.
    """

    def __init__(
        self, request: CompletionRequest, on_stop: Callable[[], None], names: Sequence[str] | None = None
    ) -> None:
        self._labels = list(names or _labels(request))[:MOST_PANES]
        self._on_stop = on_stop
        most = KNOBS["max_tokens"].default if request.parameters.max_tokens is UNSET else request.parameters.max_tokens
        self._meters = Meters(int(str(most)) * request.choices)
        self._area: Area | None = None
        self._new: defaultdict[int, list[str]] = defaultdict(list)
        self._reasons: dict[int, str] = {}
        self._pages: defaultdict[int, Pages] = defaultdict(Pages)
        self._lock = threading.Lock()
        self._has_news = False
        self._news: SimpleQueue[bool] = SimpleQueue()
        self._ticker = threading.Thread(target=self._tick, name="completions-area", daemon=True)

    def __enter__(self) -> Self:
        from .area import Area

        self._area = Area(self._labels, self._on_stop, meters=self._meters.state())
        # The widget alone: a text beside it would stay in the saved file.
        reference = {"version_major": 2, "version_minor": 0, "model_id": self._area.model_id}
        display({"application/vnd.jupyter.widget-view+json": reference}, raw=True)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._news.put(END)
        self._ticker.join()
        self._meters.end()
        self._flush()
        clear_output(wait=True)

    def dispose(self) -> None:
        """Close the area, after the record has taken its place."""
        if self._area is not None:
            self._area.close()

    def add(self, chunk: Completion) -> None:
        """Keep the new text for the next flush."""
        with self._lock:
            self._meters.add(chunk)
            for choice in chunk.choices:
                if 0 <= choice.index < MOST_PANES:
                    self._new[choice.index].append(choice.text)
                    if choice.finish_reason:
                        self._reasons[choice.index] = in_words(choice.finish_reason)
        self._tell()

    def say(self, line: str) -> None:
        """Show one line below the text."""
        with self._lock:
            self._meters.line = one_line(line)
            self._meters.changed = True
        self._tell()

    def _tell(self) -> None:
        # A queue and no event: an interrupt that falls into an event's own lock leaves it locked.
        if not self._has_news:
            self._has_news = True
            self._news.put(NEWS)

    def _tick(self) -> None:
        # It goes ahead as the reader waits for more, and so sets at once what came at once: a clock of its own would
        # show the first token later, and wake a processor once more for each frame.
        due = 0.0
        while self._news.get() and not self._ends_within(due - time.monotonic()):
            due = time.monotonic() + LEAST_SECONDS
            self._has_news = False
            self._flush()

    def _ends_within(self, seconds: float) -> bool:
        if seconds <= 0:
            return False
        try:
            return not self._news.get(timeout=seconds)
        except Empty:
            return False

    def _flush(self) -> None:
        with self._lock:
            new, self._new = self._new, defaultdict(list)
            meters, changed = self._meters.state(), self._meters.changed
            self._meters.changed = False
            reasons = dict(self._reasons)
        if self._area is None or not (new or changed):
            return
        values: dict[str, Any] = {"meters": meters}
        self._labels += [str(number + 1) for number in range(len(self._labels), max(new, default=-1) + 1)]
        for index, pieces in new.items():
            pages = self._pages[index].add(inert("".join(pieces)))
            values.update({f"page_{index}_{number}": page for number, page in pages.items()})
            values[f"pane_{index}"] = [self._pages[index].count, self._pages[index].tail, reasons.get(index, "")]
        self._area.put(labels=list(self._labels), **values)


class Pages:
    """A growing text in pages of one size: `count` full ones, and the `tail` that is not full yet."""

    def __init__(self) -> None:
        self.count = 0
        self.tail = ""

    def add(self, text: str) -> dict[int, str]:
        """Add `text`; return the pages that it fills, by number."""
        self.tail += text
        full: dict[int, str] = {}
        while len(self.tail) >= PAGE_CHARACTERS:
            full[self.count] = self.tail[:PAGE_CHARACTERS]
            self.tail = self.tail[PAGE_CHARACTERS:]
            self.count += 1
        return full


class Meters:
    """Counts tokens and seconds; `most` is how many tokens may come."""

    def __init__(self, most: int) -> None:
        self.line = ""
        self.changed = True
        self._most = most
        self._tokens = 0
        self._start = time.monotonic()
        self._first: float | None = None
        self._end: float | None = None

    def add(self, chunk: Completion) -> None:
        """Count a chunk: its log-probabilities say how many tokens it is, otherwise a text counts as one."""
        self.changed = True
        for choice in chunk.choices:
            if choice.text and self._first is None:
                self._first = time.monotonic() - self._start
                self.line = ""
            self._tokens += len(choice.logprobs.tokens) if choice.logprobs else bool(choice.text)
        if chunk.usage is not None and chunk.usage.completion_tokens:
            self._tokens = chunk.usage.completion_tokens

    def end(self) -> None:
        """Stop the clock."""
        self._end = time.monotonic() - self._start
        self.changed = True

    def state(self) -> dict[str, Any]:
        """Return what the live area shows."""
        elapsed = time.monotonic() - self._start if self._end is None else self._end
        streaming = elapsed - (self._first or 0)
        return {
            "tokens": self._tokens,
            "most": self._most,
            "first": None if self._first is None else round(self._first, 2),
            "rate": round(self._tokens / streaming) if self._first is not None and streaming > RATE_SECONDS else None,
            "elapsed": round(elapsed, 1),
            "line": self.line,
            "state": "running" if self._end is None else "ended",
        }


def _labels(request: CompletionRequest) -> list[str]:
    """Return what the choices are called that the request asks for."""
    return labels(Completion(choices=[Choice(index=at) for at in range(request.choices)], request=request))


def choose_kind(shell: Any, kind: str, *, whole_cell: bool) -> str:
    """Return `widget`, `text` or `none`, as asked for or as suits where the cell runs."""
    kernel = getattr(shell, "kernel", None)
    if kind == "auto":
        if not whole_cell:
            return "none"
        if kernel is None:
            return "text"
        return "widget" if is_watched(kernel) else "none"
    return "none" if kind == "widget" and kernel is None else kind


def choose_view(
    shell: Any,
    request: CompletionRequest,
    on_stop: Callable[[], None],
    *,
    kind: str,
    whole_cell: bool,
    names: Sequence[str] | None = None,
) -> View:
    """Return the view that suits where the cell runs; `kind` is one of VIEWS, `whole_cell` false inside loops.

    `names` are what the panes are called; without them the choices have their numbers.
    """
    kind = choose_kind(shell, kind, whole_cell=whole_cell)
    if kind == "widget":
        return NotebookView(request, on_stop, names)
    if kind != "text":
        return View()
    drawable = sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")
    return PanesView(request, names) if drawable and len(names or _labels(request)) > 1 else TerminalView()
