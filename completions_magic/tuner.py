"""The tuner: a panel of knobs, the runs they led to, and the line that asks the same again."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

import msgspec

from . import record
from .client import Client, Stream
from .difference import compare
from .errors import CompletionsError, ConversionError
from .heatmap import preformatted
from .inert import inert, one_line
from .knobs import Original, Setting, faces, shown, table
from .live import LONGEST_LINE, Live, in_words
from .options import Options
from .profiles import known_profiles
from .schema import Choice, Completion, CompletionRequest
from .slot import script, style
from .views import MOST_PANES, Meters, Pages

NOTHING_YET = "nothing has come yet"
DEFAULTS = "every parameter at the server's default"


class Task(Protocol):
    """What a prepared run knows: its request, who answers it, and how the answer is bound."""

    options: Options
    request: CompletionRequest
    client: Client

    def bind(self, completion: Completion) -> Any:
        """Bind the completion as the options say."""

    def keep(self, partial: Completion) -> None:
        """Bind what had arrived of an answer that did not end."""


@dataclass(frozen=True)
class Bench:
    """What a tuner needs of the session that it works in: the way that every line goes.

    `prepare` checks options and a body, `client` finds who answers some options, `note` keeps a run in the
    session's history; `cell` is the id of the cell, where the front end told it and it is this cell alone.
    """

    prepare: Callable[[Options, str], Task]
    client: Callable[[Options], Client]
    note: Callable[[Any, Completion, BaseException | None], None]
    cell: str | None = None


class Run:
    """One run: what was set, and what has come of it so far, as the page reads it."""

    def __init__(self, number: int, setting: Setting, task: Task) -> None:
        self.number = number
        self.setting = setting
        self.task = task
        self.stream: Stream = task.client.send(task.request, sample=task.options.sample)
        self.completion: Completion | None = None
        self.state = "running"
        self._meters = Meters(0)
        self._pages: defaultdict[int, Pages] = defaultdict(Pages)
        self._reasons: dict[int, str] = {}
        self._new: defaultdict[int, list[str]] = defaultdict(list)
        self._seen: defaultdict[int, int] = defaultdict(int)

    @property
    def begun(self) -> bool:
        """True once text has come."""
        return bool(self._pages or self._new)

    def add(self, chunk: Completion) -> None:
        """Keep a chunk for the next `values`."""
        self._meters.add(chunk)
        for choice in chunk.choices:
            if 0 <= choice.index < MOST_PANES:
                self._new[choice.index].append(choice.text)
                self._seen[choice.index] += len(choice.text)
                self._reasons[choice.index] = record.in_words(choice.finish_reason) if choice.finish_reason else ""

    def end(self, ended: str | None = None) -> Completion:
        """Keep how it ended: `ended` is the finish_reason of choices that have none."""
        self.completion = self.stream.ended(ended)
        # What the stream's thread has read as it was stopped is in the answer, and has not been shown.
        shown = (choice for choice in self.completion.choices if choice.index < MOST_PANES)
        rests = [Choice(choice.text[self._seen[choice.index] :], choice.index) for choice in shown]
        self.add(Completion(choices=[rest for rest in rests if rest.text]))
        self._meters.end()
        self.state = ended or "ended"
        for choice in self.completion.choices[:MOST_PANES]:
            self._new[choice.index].append("")
            self._reasons[choice.index] = record.reason(choice)
        return self.completion

    def values(self) -> dict[str, Any]:
        """Return what is new since the last time: pages that are full once, the tail of each choice, and the meters."""
        new, self._new = self._new, defaultdict(list)
        values: dict[str, Any] = {}
        for choice, pieces in new.items():
            pages = self._pages[choice].add(inert("".join(pieces)))
            values.update({f"page_{self.number}_{choice}_{at}": page for at, page in pages.items()})
            tail = self._pages[choice]
            values[f"pane_{self.number}_{choice}"] = [tail.count, tail.tail, self._reasons.get(choice, "")]
        meters = self._meters.state()
        numbers = {"tokens": meters["tokens"], "seconds": meters["elapsed"], "rate": meters["rate"]}
        values[f"run_{self.number}"] = {**numbers, "state": self.state, "choices": max(self._pages, default=-1) + 1}
        return values

    def text(self) -> str:
        """Return the whole text; several choices each under its number."""
        choices = [] if self.completion is None else self.completion.choices
        if len(choices) < 2:
            return "".join(inert(choice.text) for choice in choices)
        return "\n".join(f"[{at}/{len(choices)}] {inert(choice.text)}" for at, choice in enumerate(choices, 1))


class Tuner(Live):
    """Shows the knobs of a request; each run streams into the panel, and the last is bound and saved.

    `options` and `body` are the cell's. What is in the saved file is the record of the run that is bound, and a
    table of its parameters; with a page that runs widgets, the panel takes their place, and `start` begins.
    Raises CompletionsError for what cannot be asked.
    """

    kind = "tuner"
    _esm = script("tuner.js")
    _css = style("tuner.css")

    def __init__(self, options: Options, body: str, bench: Bench) -> None:
        self._bench = bench
        self._original = Original.of(options, body)
        self._setting = self._original.setting
        self._runs: list[Run] = []
        self._running: Run | None = None
        self._bound: Run | None = None
        self._failure = ""
        self._edition = 0
        self._pins: list[int] = []
        self._asking: object = None
        task = bench.prepare(self._original.options, self._original.body)
        super().__init__(task.request.encode(), **self._fixed(task), **self._panel(), **self._inherited(task))
        self.on_msg(self._hear)

    @property
    def completion(self) -> Completion | None:
        """The run that is bound, or None before the first has ended."""
        return None if self._bound is None else self._bound.completion

    def start(self) -> None:
        """Run what the cell says."""
        with self._lock:
            self._try(lambda: self._run(self._setting))

    def keep(self, task: Task, completion: Completion) -> None:
        """Show a run that was made elsewhere: where nobody looks, the cell itself makes one."""
        run = Run(len(self._runs), self._setting, task)
        run.completion = completion
        self._runs.append(run)
        self._bound = run

    def plain(self) -> str:
        """Return the record of the run that is bound, and what was set."""
        return f"{self._record()['text/plain']}\n{self.rows()}"

    def rows(self) -> str:
        """Return what was set, a line each."""
        return "\n".join(f"{name}: {one_line(text)}" for name, text in self._table().items()) or DEFAULTS

    def html(self) -> str:
        """Return the record of the run that is bound, and what was set, as static HTML."""
        cell = f'style="{record.ASIDE}"'
        rows = "".join(
            f'<tr><td {cell}>{preformatted(name)}</td><td style="text-align:left">'
            f'<code style="{record.CODE};white-space:pre-wrap">{preformatted(text)}</code></td></tr>'
            for name, text in self._table().items()
        )
        shown_ = f"<table>{rows}</table>" if rows else f'<p style="{record.FOOT}">{escape(DEFAULTS)}</p>'
        return self._record()["text/html"] + shown_

    def metadata(self) -> dict[str, Any]:
        """Return the provenance of the run that is bound."""
        return {} if self.completion is None else record.provenance(self.completion)

    def __repr__(self) -> str:
        return f"Tuner({len(self._runs)} runs)"

    def _record(self) -> dict[str, str]:
        if self.completion is not None:
            return record.record(self.completion)
        line = self._failure or NOTHING_YET
        return {"text/plain": line, "text/html": f'<pre style="{record.PRE}">{preformatted(line)}</pre>'}

    def _table(self) -> Mapping[str, str]:
        setting = self._setting if self._bound is None else self._bound.setting
        rows = dict(table(self._original.options_for(setting)))
        if setting.prompt != self._original.body:
            rows["prompt"] = setting.prompt
        return rows

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        with self._lock:
            self._try(lambda: self._obey(content))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  # a prompt may name anything; the person who looks reads it there
            self.put(line=in_words(error), failed=True)

    def _obey(self, content: Any) -> None:
        match content:
            case {"edit": setting, "by": str(by)}:
                self._edit(msgspec.convert(setting, Setting), by)
            case {"run": setting, "by": str(by)}:
                self._edit(msgspec.convert(setting, Setting), by)
                self._run(self._setting)
            case {"write": setting, "ticket": int(ticket)}:
                text = self._original.cell_for(msgspec.convert(setting, Setting))
                self.send({"written": text, "ticket": ticket})
            case {"models": str(profile)}:
                self._list_models(profile)
            case {"restore": int(at)} if 0 <= at < len(self._runs):
                self._restore(self._runs[at])
            case {"star": int(at)} if 0 <= at < len(self._runs):
                self._star(self._runs[at])
            case {"pin": int(at)} if 0 <= at < len(self._runs):
                self._pin([pin for pin in self._pins if pin != at] if at in self._pins else [*self._pins, at])
            case {"stop": True}:
                self._stop()

    def _edit(self, setting: Setting, by: str) -> None:
        """Take the setting of the page `by`, and say what is wrong with it."""
        changed = setting.profile != self._setting.profile
        self._setting = setting
        self.put(**self._panel(by))
        if changed:
            self.put(**self._named())

    def _run(self, setting: Setting) -> None:
        """Ask; what was being asked before is ended, at the server too."""
        options = self._original.options_for(setting)
        task = self._bench.prepare(options, setting.prompt)
        self._stop("replaced")
        run = self._running = Run(len(self._runs), setting, task)
        self._runs.append(run)
        task.client.on_wait = lambda wait: self._say(run, str(wait))
        self.put(line="", failed=False, **self._card(run), **run.values(), **self._state(run), **self._inherited(task))
        self._follow(lambda: self._read(run), lambda: self._show(run), lambda error: self._end(run, "error", error))

    def _stop(self, ended: str = "stopped") -> None:
        """End the stream in flight; its thread adds nothing from now on."""
        run = self._running
        if run is not None:
            run.stream.stop()
            self._end(run, ended)

    def _end(self, run: Run, ended: str | None = None, failure: BaseException | None = None) -> None:
        if run is not self._running:
            return
        self._running = None
        completion = run.end({"replaced": "stopped"}.get(ended or "", ended))
        if ended == "replaced" and not run.begun:
            run.state = "gone"
        line = self._keep(run, failure) if ended != "replaced" else ""
        self._failure = line if self._bound is None else ""
        self.put(**run.values(), **self._state(), line=line, failed=bool(line))
        self._bench.note(run.task, completion, failure)
        self.refresh()

    def _keep(self, run: Run, failure: BaseException | None) -> str:
        """Bind what came of a run; return what went wrong, in words."""
        completion = run.completion or Completion()
        if any(completion.texts) or (failure is None and completion.choices):
            self._bound = run
        if failure is not None:
            run.task.keep(completion)
            return in_words(failure)
        try:
            run.task.bind(completion) if any(completion.texts) else run.task.keep(completion)
        except ConversionError as error:
            return "" if run.state == "stopped" else in_words(error)
        return ""

    def _read(self, run: Run) -> None:
        with contextlib.closing(run.stream):
            for chunk in run.stream:
                with self._lock:
                    if run is not self._running:
                        return
                    first = not run.begun
                    run.add(chunk)
                    if first and run.begun:
                        self.put(**run.values())
        with self._lock:
            self._end(run)

    def _show(self, run: Run) -> None:
        if run is self._running:
            self.put(**run.values())

    def _say(self, run: Run, line: str) -> None:
        """Show a line, unless the run has ended meanwhile."""
        with self._lock:
            if run is self._running:
                self.put(line=one_line(line), failed=False)

    def _restore(self, run: Run) -> None:
        """Put the knobs back to where they were for a run, and show its text."""
        self._setting = run.setting
        self.put(shown=run.number, line="", failed=False, **self._panel(), **self._named())

    def _star(self, run: Run) -> None:
        """Bind a run that has ended, and let it be what the file holds."""
        if run.completion is None:
            return
        self._bound = run
        self.put(shown=run.number, **self._state())
        self.refresh()
        run.task.bind(run.completion)
        out = run.task.options.out
        line = f"{out} holds run {run.number + 1}" if out else f"the notebook keeps run {run.number + 1}"
        self.put(line=line, failed=False)

    def _pin(self, pins: list[int]) -> None:
        """Compare the pinned runs, in a thread of its own: long texts take a while, and Stop must not wait."""
        texts = [self._runs[at].text() for at in pins]
        self._pins = pins

        def put() -> None:
            columns = _columns(texts)
            with self._lock:  # or else what is older may come to the page last
                if self._pins is pins:
                    self.put(pins=pins, columns=columns)

        threading.Thread(target=put, name="completions-tuner-pins", daemon=True).start()

    def _list_models(self, profile: str) -> None:
        """Ask the endpoint for its models, in a thread of its own."""
        options = self._original.options_for(Setting({}, "", "", profile))
        client = self._bench.client(options)

        self._asking = asking = object()

        def ask() -> None:
            values: dict[str, Any]
            try:
                names = [one_line(model.id, LONGEST_LINE) for model in client.models()]
            except CompletionsError as error:
                values = {"line": in_words(error), "failed": True}
            else:
                values = {"models": {"profile": profile, "names": names}}
            with self._lock:
                if self._asking is asking:
                    self.put(**values)

        threading.Thread(target=ask, name="completions-tuner-models", daemon=True).start()

    def _fixed(self, task: Task) -> dict[str, Any]:
        """Return what the page needs once."""
        given = self._original.options.prompt
        return {
            "faces": faces(),
            "profiles": list(known_profiles()),
            "models": {"profile": None, "names": []},
            "cell": self._bench.cell,
            "out": task.options.out,
            "given": None if given is None else inert(str(given)),
            "extra": dict(table(Options(extra=self._original.options.extra))),
            "count": 0,
            "shown": None,
            "running": None,
            "bound": None,
            "pins": [],
            "columns": [],
            "line": "",
            "failed": False,
            **self._named(),
        }

    def _named(self) -> dict[str, Any]:
        """Return what an empty profile and an empty model stand for."""
        with contextlib.suppress(CompletionsError):
            usual = self._bench.client(self._original.options_for(Setting({}, "")))
            chosen = self._bench.client(self._original.options_for(Setting({}, "", "", self._setting.profile)))
            return {"usual": [one_line(usual.name, 60), one_line(chosen.model or "", 60)]}
        return {"usual": ["", ""]}

    def _panel(self, by: str = "") -> dict[str, Any]:
        """Return the setting, who set it, what is wrong with it, and the line that it comes to."""
        problems = self._original.problems(self._setting)
        line = "" if problems else self._original.line_for(self._setting)
        setting = msgspec.to_builtins(self._setting)
        self._edition += 1
        return {"setting": {**setting, "by": by, "edition": self._edition}, "problems": problems, "code": inert(line)}

    def _inherited(self, task: Task) -> dict[str, Any]:
        """Return what is sent without a knob being set: from the profile, the settings, or a hole in the prompt."""
        set_ = task.request.parameters.to_dict().items()
        known = task.options.parameters
        return {"inherited": {name: shown(name, value) for name, value in set_ if name not in known}}

    def _state(self, new: Run | None = None) -> dict[str, Any]:
        """Return which run is in flight and which is bound; a new one is the one that is shown."""
        return {
            "count": len(self._runs),
            "running": None if self._running is None else self._running.number,
            "bound": None if self._bound is None else self._bound.number,
            **({} if new is None else {"shown": new.number}),
        }

    def _card(self, run: Run) -> dict[str, Any]:
        """Return what was set for a run, each with whether the run before had it the same."""
        now = self._settings_of(run)
        before = now if run.number == 0 else self._settings_of(self._runs[run.number - 1])
        names = [*now, *(name for name in before if name not in now)]
        rows = [[name, inert(now.get(name, "default")), now.get(name) != before.get(name)] for name in names]
        return {f"card_{run.number}": rows}

    def _settings_of(self, run: Run) -> dict[str, str]:
        setting = run.setting
        rows = dict(table(self._original.options_for(Setting(setting.knobs, "", setting.model, setting.profile))))
        return rows if setting.prompt == self._original.body else {**rows, "prompt": one_line(setting.prompt, 60)}


def _columns(texts: list[str]) -> list[list[list[str]]]:
    """Return texts beside each other, each in pieces that say what it shares with the first and what it has alone."""
    if len(texts) < 2:
        return []
    pairs = [list(compare(texts[0], text)) for text in texts[1:]]
    return [_gone(pairs[0]) if len(pairs) == 1 else [["same", texts[0]]], *map(_come, pairs)]


def _gone(pairs: list[tuple[str, str]]) -> list[list[str]]:
    return _whole([["same" if gone == come else "gone", gone] for gone, come in pairs if gone])


def _come(pairs: list[tuple[str, str]]) -> list[list[str]]:
    return _whole([["same" if gone == come else "come", come] for gone, come in pairs if come])


def _whole(pieces: list[list[str]]) -> list[list[str]]:
    """Return the pieces with the blanks between two that differ counted to them, so that a phrase is marked as one."""
    joined: list[list[str]] = []
    for at, (mark, text) in enumerate(pieces):
        between = 0 < at < len(pieces) - 1 and pieces[at - 1][0] == pieces[at + 1][0] != "same"
        shown_as = pieces[at - 1][0] if between and not text.strip() else mark
        if joined and joined[-1][0] == shown_as:
            joined[-1][1] += text
        else:
            joined.append([shown_as, text])
    return joined
