"""From a cell to a variable: `%%complete`, `%complete` and `%completions`."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import display

from .audience import is_watched
from .binding import check_name, check_pattern
from .card import Card
from .cassette import Cassette
from .client import Client, Stream
from .errors import (
    CassetteError,
    CompletionsError,
    ConversionError,
    Interrupted,
    OptionError,
    ProfileError,
    PromptError,
    nearest,
    shorten,
)
from .inert import inert, one_line
from .options import Options, check_together, help_text, parse
from .profiles import LOCAL, Profile, choose_profile, find_profile, known_profiles, read_profiles, trust
from .prompt import render
from .record import provenance, record
from .schema import Completion, CompletionRequest
from .tape import Tape
from .task import DryRun, Task
from .views import FLUSH_SECONDS, VIEWS, View, choose_view

if TYPE_CHECKING:
    from .distribution import DistributionView
    from .extension import CompletionsMagics
    from .progress import Progress
    from .tokens import TokenView
    from .tuner import Tuner
    from .verdict import Verdict


LONGEST_HISTORY = 1000
EMPTY = "the answer is empty: the model ended at once"
EMPTY_STOPPED = "stopped before anything had come"


@dataclass(frozen=True)
class Run:
    """What a cell asked, and what came of it; `cell` is its number, `failure` None where it went well."""

    cell: int
    client: Client
    request: CompletionRequest
    completion: Completion
    failure: BaseException | None


def _check_sample(sample: int | None, client: Client, request: CompletionRequest) -> None:
    """Raise OptionError where recording this sample would leave a gap before it."""
    if sample is None or not client.asks(request, sample):
        return
    free = next(number for number in count(1) if client.asks(request, number))
    if free < sample:
        raise OptionError(f"--sample {sample}: the cassette holds {free - 1} of this request, so the next is {free}")


class Session:
    """The magics of one shell at work: its connections, and the last completion."""

    help = (
        "Send the cell's text to a completions endpoint, show the answer as it streams, and bind it.\n\n" + help_text()
    )
    manual = """Manage, never generate.

    %completions profiles          the endpoints that have a name
    %completions models [NAME]     the models of an endpoint, by its name or its address
    %completions doctor [NAME]     what an endpoint honours of the API: a card, found by about a dozen tiny requests
    %completions trust NAME        let completions.toml send its key to its base URL
    %completions last              the last completion
    %completions tokens [NAME]     its tokens, or another completion's: choose one, and the text goes on from there
    %completions distribution [NAME]   what temperature, top_p, top_k and min_p would do to its first token
    %completions cassette          the cassettes in use; with rewind every request begins at its first recording again
    %completions history           what was asked in this session
    %completions verify            ask it all again, without a cassette, and say what differs
    """

    def __init__(self, settings: CompletionsMagics, shell: Any) -> None:
        self._settings = settings
        self.shell = shell
        self.last: Completion | None = None
        self.history: deque[Run] = deque(maxlen=LONGEST_HISTORY)
        self.asked = 0
        self._clients: dict[Any, Client] = {}
        self._tapes: dict[Path, Tape] = {}
        self.views: list[View | Progress] = []
        self._tuners: dict[str, Tuner] = {}
        self._cards: dict[str, Card | None] = {}
        self._warned: set[tuple[str, str]] = set()
        shell.events.register("post_run_cell", self.dispose_views)

    def dispose_views(self, _result: object = None) -> None:
        """Close the live areas of a cell that has ended; by now the record has taken their place."""
        while self.views:
            self.views.pop().dispose()

    def close(self) -> None:
        """Close all connections."""
        self.shell.events.unregister("post_run_cell", self.dispose_views)
        for tuner in self._tuners.values():
            tuner.close()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def complete(self, line: str, cell: str | None = None, local: Mapping[str, Any] | None = None) -> Any:
        """Run `%%complete`, or `%complete` where there is no cell; `local` is what a function around it sees."""
        body = None if cell is None else self._body(line, cell)
        seen = self.shell.user_ns if not local or local is self.shell.user_ns else {**self.shell.user_ns, **local}
        options, rest = parse(line, seen, prompt_follows=cell is None)
        if options.help:
            print(help_text())
            return None
        whole = body is not None and self._is_this_cell(line)
        if whole and self._settings.cell_id in self._tuners:
            self._tuners.pop(self._settings.cell_id).close()  # what the cell asked before is nobody's any more
        try:
            if options.tune and body is None:
                raise OptionError("--tune opens a panel below a %%complete cell")
            many = self._many(options)
            if many is not None:
                return many(options, rest if body is None else body, seen, whole_cell=whole)
            task = self.prepare(options, rest if body is None else body, seen)
            task.returns = cell is None
            if options.dry_run:
                return DryRun(task.client, task.request)
            if options.background:
                return Background(self, task)
            return self._run(task, whole_cell=whole)
        except CompletionsError as error:
            if options.raise_error:
                raise
            print(error.headline, file=sys.stderr)
            return error.partial if cell is None else None

    def _many(self, options: Options) -> Callable[..., Any] | None:
        """Return what runs the cell where it is more than one completion."""
        ways = {
            "--score": options.score is not None,
            "-i": options.inputs is not None and options.score is None,
            "--sweep": options.sweep is not None,
            "--tune": options.tune,
        }
        chosen = [flag for flag, is_chosen in ways.items() if is_chosen]
        if len(chosen) > 1:
            raise OptionError(f"{chosen[0]} and {chosen[1]} do not go together")
        way = chosen[0] if chosen and chosen[0] != "--tune" else ""
        check_together(options, way)
        if not chosen or (options.dry_run and options.tune):
            return None
        if not way:
            return self._tune
        from .many import Many

        many = Many(self)
        return {"--score": many.scores, "-i": many.rows, "--sweep": many.sweep}[way]

    def _is_this_cell(self, line: str) -> bool:
        first = self._settings.typed.lstrip("\n").partition("\n")[0].strip()
        magic, _, rest = first.partition(" ")
        return magic == "%%complete" and rest.strip() == line.strip()

    def _body(self, line: str, cell: str) -> str:
        if not self._is_this_cell(line):
            return cell.removesuffix("\n")  # the one that IPython appends
        body = self._settings.typed.lstrip("\n").partition("\n")[2]
        if self.shell.__class__.__name__ == "TerminalInteractiveShell":
            # In a terminal two empty lines end the cell, and it indents them by itself.
            body = re.sub(r"\n[ \t]*\n[ \t]*\Z", "", body)
        return body

    def prepare(self, options: Options, body: str, seen: Mapping[str, Any]) -> Task:
        """Check everything that can be checked before anything is sent; `seen` is what a prompt may name."""
        names = self.shell.user_ns
        if options.out is not None:
            check_name(options.out, names)
        pattern = None if options.extract is None else check_pattern(options.extract, names)
        prompt, suffix = self.prompt(options, body, seen)
        client = self.client(options)
        parameters = self.parameters(options, client)
        if suffix is not None:
            if "suffix" in options.parameters:
                raise OptionError("--suffix and {{fill}} both give a suffix: use one")
            parameters["suffix"] = suffix
        if "stream" not in parameters and "best_of" not in parameters:
            parameters["stream"] = True
        request = client.request(prompt, **parameters)
        return Task(options, request, client, names, pattern)

    def parameters(self, options: Options, client: Client) -> dict[str, Any]:
        """Return every field that a request of this line sets, beside prompt and model."""
        defaults = {**self._settings.parameters, **client.profile.parameters}
        return {**options.extra, **defaults, **options.parameters}

    def prompt(self, options: Options, body: str, seen: Mapping[str, Any]) -> tuple[Any, str | None]:
        """Return the prompt, and what follows its hole. Raises PromptError or OptionError."""
        if options.prompt is not None:
            if body.strip():
                raise OptionError("--prompt and the text of the cell are two prompts: use one")
            return options.prompt, None
        if not body.strip():
            raise PromptError("the prompt is empty: write it below the line, or say --prompt '' to send an empty one")
        return render(body, seen, raw=options.raw)

    def _profile(self, options: Options) -> Profile:
        name, base_url = options.profile or self._settings.profile or None, options.base_url
        place = {"api_key_env": options.api_key_env, "api_key_from": options.api_key_from}
        allow_http = options.allow_http
        if options.profile is None and base_url is None:
            # A setting's key belongs to the setting's address, not to one on the line.
            base_url = self._settings.base_url or None
            if place == dict.fromkeys(place):
                place = {setting: getattr(self._settings, setting) or None for setting in place}
                allow_http = allow_http or self._settings.allow_http
        profile = choose_profile(name, base_url=base_url, allow_http=allow_http, model=options.model, **place)
        if not name and base_url is None and self._settings.model and options.model is None:
            return replace(profile, model=self._settings.model)
        return profile if profile.model else replace(profile, model=self._settings.model or None)

    def client(self, options: Options) -> Client:
        """Return the client of a line: the one that has the connection already, where there is one."""
        profile = self._profile(options)
        names = ("connect_timeout", "first_token_timeout", "timeout", "retries", "event_limit")
        settings = {name: getattr(self._settings, name) for name in names}
        given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
        client = Client(profile, **{**settings, **given}, cassette=self._cassette(options))
        return self._clients.setdefault(client.identity, client)

    def _cassette(self, options: Options) -> Cassette | None:
        path = self._settings.cassette if options.cassette is None else options.cassette
        if not path:
            if options.record or options.sample:
                raise OptionError("--record and --sample need a cassette: --cassette PATH names one")
            if os.environ.get("COMPLETIONS_RECORD") == "none" and self._profile(options).base_url != LOCAL:
                raise CassetteError("COMPLETIONS_RECORD is none and there is no cassette: --cassette PATH names one")
            return None
        try:
            place = Path(path).expanduser().resolve()
        except (OSError, RuntimeError) as error:
            raise OptionError(f"--cassette {shorten(path, 60)}: {error}") from None
        tape = self._tapes.setdefault(place, Tape(path))
        mode = options.record or os.environ.get("COMPLETIONS_RECORD") or self._settings.record
        return Cassette(tape, record=mode, pace=self._settings.pace)

    def _run(self, task: Task, *, whole_cell: bool) -> Any:
        """Stream the answer into a view, bind it, and return the cell's result."""
        _check_sample(task.options.sample, task.client, task.request)
        frame = FLUSH_SECONDS if whole_cell and not task.options.quiet else 0.0
        stream = task.client.send(task.request, sample=task.options.sample, frame=frame)
        view = self.view(task, task.request, stream.stop, whole_cell=whole_cell)
        task.client.on_wait = lambda wait: view.say(str(wait))
        try:
            with view:
                try:
                    for chunk in stream:
                        view.add(chunk)
                finally:
                    stream.close()
        except KeyboardInterrupt:
            # Outside the handler below, so that the frames of the transport, which knows the key, are let go.
            failure: BaseException | None = None if stream.stopped else Interrupted()
        except CompletionsError as error:
            failure = error
        else:
            failure = None
        if failure is not None:
            self.note(task, stream.ended("error"), failure)
            raise self._kept(task, stream, view, failure)
        self.last = completion = stream.ended("stopped" if stream.stopped else None)
        self.note(task, completion)
        view.end(completion)
        if not any(completion.texts):
            print(EMPTY_STOPPED if stream.stopped else EMPTY, file=sys.stderr)
        return self._result(task, completion, view)

    def _tune(self, options: Options, body: str, seen: Mapping[str, Any], *, whole_cell: bool) -> Any:
        """Open the tuner; where no page shows it, run once and leave the record and what was set."""
        from .tuner import Bench, Tuner

        def prepare(options: Options, body: str) -> Task:
            return self.prepare(options, body, seen)

        cell = self._settings.cell_id if whole_cell else None
        tuner = Tuner(options, body, Bench(prepare, self.client, self._note_last, cell))
        kernel = getattr(self.shell, "kernel", None)
        if kernel is not None and is_watched(kernel):
            self._tuners[cell or tuner.model_id] = tuner
            tuner.start()
            return tuner
        task = prepare(options, body)
        quiet = options.quiet or kernel is not None
        result = self._run(replace(task, options=replace(options, quiet=quiet)), whole_cell=whole_cell)
        tuner.keep(task, self.last or Completion())
        if kernel is None:
            print(tuner.rows())
        elif not options.quiet:
            display(tuner)
        return result

    def _note_last(self, task: Task, completion: Completion, failure: BaseException | None = None) -> None:
        """Keep a run of the tuner in the history; the last that went well is the last completion."""
        self.last = completion if failure is None and completion.choices else self.last
        self.note(task, completion, failure)

    def since(self, number: int) -> list[Run]:
        """Return what was asked in this session from the `number`-th request on, as far as the history goes back."""
        return list(self.history)[max(0, len(self.history) - (self.asked - number)) :]

    def note(self, task: Task, completion: Completion, failure: BaseException | None = None) -> None:
        """Keep in the history what was asked and came, and say how a recording that was made anew differs."""
        self.asked += 1
        self.history.append(Run(self.shell.displayhook.prompt_count, task.client, task.request, completion, failure))
        if failure is None:
            self._warn(task.client, task.request)
        changes = [] if task.client.cassette is None else task.client.cassette.changes
        while changes:
            print(f"recorded again: {inert(str(changes.pop(0)))}")

    def _warn(self, client: Client, request: CompletionRequest) -> None:
        """Say once what the endpoint ignored of a request, as its card knows; with a cassette outputs stay the same."""
        base_url = client.profile.base_url
        if client.cassette is not None:
            return
        if base_url not in self._cards:
            self._cards[base_url] = Card.kept(base_url)
        card = self._cards[base_url]
        fresh = [name for name in card.ignores(request) if (base_url, name) not in self._warned] if card else []
        self._warned.update((base_url, name) for name in fresh)
        if card and fresh:
            print(f"{client.name} ignores {' and '.join(fresh)} (%completions doctor, {card.date})", file=sys.stderr)

    def view(
        self,
        task: Task,
        request: CompletionRequest,
        on_stop: Callable[[], None],
        *,
        whole_cell: bool,
        names: Sequence[str] | None = None,
    ) -> View:
        """Return the view of a run, let go of when the cell has ended; `names` are what its panes are called."""
        if task.options.quiet:
            return View()
        kind = self.kind(task.options)
        view = choose_view(self.shell, request, on_stop, kind=kind, whole_cell=whole_cell, names=names)
        self.views.append(view)
        return view

    def kind(self, options: Options) -> str:
        """Return the kind of view that is asked for. Raises OptionError where there is none of that name."""
        kind: str = options.view or os.environ.get("COMPLETIONS_VIEW") or self._settings.view
        if kind not in VIEWS:
            raise OptionError(f"a view is {', '.join(VIEWS)}, not {kind[:40]!r}{nearest(kind, VIEWS)}")
        return kind

    def _kept(self, task: Task, stream: Stream, view: View, error: BaseException) -> BaseException:
        """Bind and show what had arrived; return the error to raise."""
        interrupted = isinstance(error, Interrupted)
        partial = stream.ended("interrupted" if interrupted else "error")
        task.keep(partial)
        if any(partial.texts):
            self.last = partial
            self._remember(partial)
            if view.shows_result:
                view.end(partial)
            elif task.shows:
                self._show(partial)
        if isinstance(error, Interrupted):
            error.partial = partial
        return error

    def _result(self, task: Task, completion: Completion, view: View) -> Any:
        if not completion.choices:
            task.keep(completion)
            return completion if task.returns else None
        try:
            value = task.bind(completion)
        except ConversionError:
            if completion.choices and completion.choices[0].finish_reason == "stopped":
                value = completion  # half a JSON object is what a person gets who stops it
            else:
                self._remember(completion)
                if not view.shows_result and task.shows:
                    self._show(completion)
                raise
        if task.returns:
            return value
        if view.shows_result or task.options.quiet:
            self._remember(completion)
            return None
        return completion

    def _remember(self, completion: Completion) -> None:
        """Set `_` and `Out[n]` without displaying anything."""
        self.shell.displayhook.update_user_ns(completion)

    def _show(self, completion: Completion) -> None:
        display(record(completion), metadata=provenance(completion), raw=True)

    def completions(self, line: str) -> Any:
        """Run `%completions`."""
        words = line.split()
        commands: dict[str, Callable[..., Any]] = {
            "profiles": self._profiles,
            "models": self._models,
            "doctor": self._doctor,
            "trust": self._trust,
            "last": self._show_last,
            "tokens": self._tokens,
            "distribution": self._distribution,
            "cassette": self._show_cassette,
            "history": self._show_history,
            "verify": self._verify,
        }
        if not words:
            print(self.manual)
            return None
        command = commands.get(words[0])
        if command is None:
            raise OptionError(
                f"%completions takes {', '.join(commands)}, not {words[0][:40]!r}{nearest(words[0], commands)}"
            )
        most = int(words[0] in ("models", "doctor", "trust", "tokens", "distribution", "cassette"))
        least = int(words[0] == "trust")
        if not least <= len(words) - 1 <= most:
            wanted = "rewind" if words[0] == "cassette" else "a name" if most else "nothing"
            raise OptionError(f"%completions {words[0]} takes {wanted}, and nothing more")
        return command(*words[1:])

    def known_models(self) -> list[str]:
        """Return the models that may be named without asking the network: profiles', and the last answer's."""
        named = [profile.model for profile in known_profiles().values() if profile.model]
        return sorted({*named, *([self.last.model] if self.last is not None else [])})

    def _profiles(self) -> None:
        known, damage = read_profiles()
        used = None
        try:
            used = self._profile(Options())
        except ProfileError as error:
            damage.append(error)
        for profile in known.values():
            mark = "*" if used is not None and profile.name == used.name else " "
            key = f"key in {profile.place}" if profile.place else "no key"
            model = profile.model or "no model named"
            print(f"{mark} {profile.name:<16} {profile.base_url:<34} {key:<24} {model:<16} {profile.source}")
        if used is not None and used.name not in known:
            print(f"* {used.name}: {used.base_url}")
        for line in dict.fromkeys(error.message for error in damage):
            print(line, file=sys.stderr)

    @staticmethod
    def _named(name: str | None) -> Options:
        """Return the options of an endpoint by its name or by its address."""
        return Options(base_url=name) if name is not None and "://" in name else Options(profile=name)

    def _models(self, name: str | None = None) -> None:
        client = self.client(self._named(name))
        models = client.models()
        for model in models:
            print(one_line(model.id))
        if not models:
            print(f"{client.name} lists no models")

    def _doctor(self, name: str | None = None) -> Card:
        from .doctor import examine, price

        client = self.client(replace(self._named(name), cassette=""))
        print(f"asking {client.name}: {price()}", flush=True)
        card = self._cards[client.profile.base_url] = examine(client)
        return card

    def _trust(self, name: str) -> None:
        profile = find_profile(name)
        if profile.place is None:
            raise OptionError(f"{name} names no key: there is nothing to agree to")
        trust(profile)
        print(f"{profile.place} may be sent to {profile.origin}")

    def _completion(self, name: str | None) -> Completion:
        completion = self.last if name is None else self.shell.user_ns.get(name)
        what = "there is no completion yet" if name is None else f"{one_line(name, 40)} is no completion"
        if not isinstance(completion, Completion):
            raise OptionError(f"{what}: run a cell with --logprobs 5" + ("" if name is None else " and -o NAME"))
        return completion

    def _distribution(self, name: str | None = None) -> DistributionView:
        return self._completion(name).distribution()

    def _tokens(self, name: str | None = None) -> TokenView:
        names = self.shell.user_ns
        completion = self._completion(name)

        def bind(chosen: str, branch: Completion) -> None:
            names[check_name(chosen, names, "Bind")] = branch

        return completion.tokens(bind=bind)

    def _show_cassette(self, word: str = "") -> None:
        if word not in ("", "rewind"):
            raise OptionError(f"%completions cassette takes rewind, not {word[:40]!r}")
        cassette = self._cassette(Options())
        for tape in self._tapes.values():
            if word:
                tape.rewind()
            mode = f", record mode {cassette.record}" if cassette is not None and cassette.tape is tape else ""
            print(f"{tape.path}: {len(tape)} interactions{mode}" + (", rewound" if word else ""))
        if not self._tapes:
            print("there is no cassette: --cassette PATH, or %config CompletionsMagics.cassette, names one")

    def _show_history(self) -> None:
        for run in self.history:
            set_ = {**run.request.parameters.to_dict(), **run.request.extra}
            shown = " ".join(f"{name}={value!r}" for name, value in set_.items() if name != "stream")
            came = type(run.failure).__name__ if run.failure is not None else repr(shorten(run.completion.text, 40))
            print(one_line(f"In[{run.cell}] {run.client.name} {run.request.model} {shown}", 160), "->", one_line(came))

    def _verify(self) -> None:
        for run in self.history:
            print(f"In[{run.cell}] {verify(run)}")
        if not self.history:
            print("nothing was asked in this session")

    def _show_last(self) -> Completion | None:
        if self.last is None:
            print("there is no completion yet")
        return self.last


def verify(run: Run) -> Verdict:
    """Ask again what a cell asked, of the endpoint itself, and say whether the same came."""
    from .verdict import Answered, Verdict, judge

    if run.failure is not None:
        return Verdict("failed", one_line(str(run.failure)))
    old = Answered.of(run.completion)
    with Client(run.client.profile, **run.client.settings) as client:
        try:
            stream = client.send(run.request)
            for _ in stream:
                pass
        except CompletionsError as error:
            return Verdict("failed", str(error))
    return judge(Answered.of(stream.partial), old)


class Background:
    """An answer that comes while other cells run; `wait()` returns it, `stop()` ends it early."""

    UPDATE_SECONDS = 0.25

    def __init__(self, magics: Session, task: Task) -> None:
        self._magics = magics
        self._task = task
        self._stream = task.client.send(task.request, sample=task.options.sample)
        self._error: CompletionsError | None = None
        self._handle = None
        if magics.shell is not None and getattr(magics.shell, "kernel", None) and not task.options.quiet:
            self._handle = display({"text/plain": "waiting for the first token …"}, raw=True, display_id=True)
        self._thread = threading.Thread(target=self._run, name="completions-background", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> Completion:
        """Return the completion when it has ended; raise its error, or TimeoutError after `timeout` seconds."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the completion has not ended within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._stream.ended("stopped" if self._stream.stopped else None)

    def stop(self) -> None:
        """End the answer now; what has come is bound."""
        self._stream.stop()

    @property
    def done(self) -> bool:
        """True when the answer has ended."""
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        # The same in every saved notebook: whether it has ended is what `done` says.
        out = self._task.options.out
        return "Background(" + (f"-o {out})" if out else ")")

    def _run(self) -> None:
        shown = 0.0
        try:
            for _ in self._stream:
                if time.monotonic() - shown > self.UPDATE_SECONDS:
                    shown = time.monotonic()
                    self._update(self._stream.partial)
            completion = self._stream.ended("stopped" if self._stream.stopped else None)
            self._magics.last = completion
            self._magics.note(self._task, completion)
            if any(completion.texts):
                self._task.bind(completion)
            else:
                self._task.keep(completion)
            self._update(completion)
        except CompletionsError as error:
            self._error = error
            partial = self._stream.ended("error")
            self._task.keep(partial)
            self._update(partial, error.headline)

    def _update(self, completion: Completion, line: str = "") -> None:
        if self._handle is None:
            return
        bundle = record(completion)
        if line:
            shown = [bundle["text/plain"]] if completion.text else []
            bundle = {"text/plain": "\n".join([*shown, one_line(line, 2000)])}
        self._handle.update(bundle, raw=True)
