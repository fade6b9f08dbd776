"""From a cell to a variable: `%%complete`, `%complete` and `%completions`."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from IPython.display import display

from .binding import check_name, check_pattern, convert, extract
from .client import Client, Stream
from .errors import CompletionsError, ConversionError, Interrupted, OptionError, PromptError, nearest
from .inert import inert, one_line
from .options import Options, help_text, parse
from .profiles import Profile, choose_profile, find_profile, known_profiles, trust
from .prompt import render
from .record import provenance, record
from .schema import Completion, CompletionRequest
from .views import VIEWS, View, choose_view

if TYPE_CHECKING:
    from .extension import CompletionsMagics


EMPTY = "the answer is empty: the model ended at once"
EMPTY_STOPPED = "stopped before anything had come"


@dataclass
class Task:
    """One run of the magic: what was asked, and how the answer is to be bound."""

    options: Options
    request: CompletionRequest
    client: Client
    names: dict[str, Any]
    pattern: Any = None
    returns: bool = False

    def bind(self, completion: Completion) -> Any:
        """Bind the completion as the options say; return what `-o` takes. Raises ConversionError."""
        if self.options.out is not None:
            self.names[self.options.out] = completion
        value = convert(completion, self.options.form or "completion")
        if self.options.out is not None:
            self.names[self.options.out] = value
        if self.pattern is not None:
            self.names.update(extract(completion, self.pattern))
        return value

    def keep(self, partial: Completion) -> None:
        """Bind what had arrived of an answer that did not end; a good variable is not replaced by an empty one."""
        out = self.options.out
        if out is not None and (any(partial.texts) or out not in self.names):
            self.names[out] = partial


class Session:
    """The magics of one shell at work: its connections, and the last completion."""

    help = (
        "Send the cell's text to a completions endpoint, show the answer as it streams, and bind it.\n\n" + help_text()
    )
    manual = """Manage, never generate.

    %completions profiles          the endpoints that have a name
    %completions models [NAME]     the models of an endpoint
    %completions trust NAME        let completions.toml send its key to its base URL
    %completions last              the last completion
    """

    def __init__(self, settings: CompletionsMagics, shell: Any) -> None:
        self._settings = settings
        self.shell = shell
        self.last: Completion | None = None
        self._clients: dict[Any, Client] = {}
        self._views: list[View] = []
        shell.events.register("post_run_cell", self.dispose_views)

    def dispose_views(self, _result: object = None) -> None:
        """Close the live areas of a cell that has ended; by now the record has taken their place."""
        while self._views:
            self._views.pop().dispose()

    def close(self) -> None:
        """Close all connections."""
        self.shell.events.unregister("post_run_cell", self.dispose_views)
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def complete(self, line: str, cell: str | None = None) -> Any:
        """Run `%%complete`, or `%complete` where there is no cell."""
        body = None if cell is None else self._body(line, cell)
        options, rest = parse(line, self.shell.user_ns, prompt_follows=cell is None)
        if options.help:
            print(help_text())
            return None
        try:
            task = self._prepare(options, rest if body is None else body)
            task.returns = cell is None
            if options.dry_run:
                return DryRun(task.client, task.request)
            if options.background:
                return Background(self, task)
            return self._run(task, whole_cell=body is not None and self._is_this_cell(line))
        except CompletionsError as error:
            if options.raise_error:
                raise
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.partial if cell is None else None

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

    def _prepare(self, options: Options, body: str) -> Task:
        """Check everything that can be checked before anything is sent."""
        names = self.shell.user_ns
        if options.out is not None:
            check_name(options.out, names)
        pattern = None if options.extract is None else check_pattern(options.extract, names)
        prompt, suffix = self._prompt(options, body)
        parameters = dict(options.parameters)
        if suffix is not None:
            if "suffix" in parameters:
                raise OptionError("--suffix and {{fill}} both give a suffix: use one")
            parameters["suffix"] = suffix
        client = self._client(options)
        parameters = {**self._settings.parameters, **client.profile.parameters, **parameters}
        if "stream" not in parameters and "best_of" not in parameters:
            parameters["stream"] = True
        request = client.request(prompt, **{**options.extra, **parameters})
        return Task(options, request, client, names, pattern)

    def _prompt(self, options: Options, body: str) -> tuple[Any, str | None]:
        if options.prompt is not None:
            if body.strip():
                raise OptionError("--prompt and the text of the cell are two prompts: use one")
            return options.prompt, None
        if not body.strip():
            raise PromptError("the prompt is empty: write it below the line, or say --prompt '' to send an empty one")
        return render(body, self.shell.user_ns, raw=options.raw)

    def _profile(self, options: Options) -> Profile:
        name, base_url = options.profile or self._settings.profile or None, options.base_url
        key = options.api_key_env
        if options.profile is None and base_url is None:
            # A setting's key belongs to the setting's address, not to one on the line.
            base_url = self._settings.base_url or None
            key = key or self._settings.api_key_env or None
        profile = choose_profile(name, base_url=base_url, api_key_env=key, model=options.model)
        if not name and base_url is None and self._settings.model and options.model is None:
            return replace(profile, model=self._settings.model)
        return profile if profile.model else replace(profile, model=self._settings.model or None)

    def _client(self, options: Options) -> Client:
        profile = self._profile(options)
        timeout = self._settings.timeout if options.timeout is None else options.timeout
        retries = self._settings.retries if options.retries is None else options.retries
        client = Client(profile, timeout=timeout, retries=retries)
        return self._clients.setdefault(client.identity, client)

    def _run(self, task: Task, *, whole_cell: bool) -> Any:
        """Stream the answer into a view, bind it, and return the cell's result."""
        stream = task.client.send(task.request)
        view = self._view(task, stream, whole_cell=whole_cell)
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
            raise self._kept(task, stream, view, failure)
        self.last = completion = stream.ended("stopped" if stream.stopped else None)
        view.end(completion)
        if not any(completion.texts):
            print(EMPTY_STOPPED if stream.stopped else EMPTY, file=sys.stderr)
        return self._result(task, completion, view)

    def _view(self, task: Task, stream: Stream, *, whole_cell: bool) -> View:
        if task.options.quiet:
            return View()
        kind = task.options.view or os.environ.get("COMPLETIONS_VIEW") or self._settings.view
        if kind not in VIEWS:
            raise OptionError(f"a view is {', '.join(VIEWS)}, not {kind[:40]!r}{nearest(kind, VIEWS)}")
        view = choose_view(self.shell, task.request, stream.stop, kind=kind, whole_cell=whole_cell)
        self._views.append(view)
        return view

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
            elif not task.options.quiet:
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
                if not view.shows_result and not task.options.quiet:
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
            "trust": self._trust,
            "last": self._show_last,
        }
        if not words:
            print(self.manual)
            return None
        command = commands.get(words[0])
        if command is None:
            raise OptionError(
                f"%completions takes {', '.join(commands)}, not {words[0][:40]!r}{nearest(words[0], commands)}"
            )
        most, least = {"models": (1, 0), "trust": (1, 1)}.get(words[0], (0, 0))
        if not least <= len(words) - 1 <= most:
            raise OptionError(f"%completions {words[0]} takes {'a name' if most else 'nothing more'}")
        return command(*words[1:])

    def known_models(self) -> list[str]:
        """Return the models that may be named without asking the network: profiles', and the last answer's."""
        named = [profile.model for profile in known_profiles().values() if profile.model]
        return sorted({*named, *([self.last.model] if self.last is not None else [])})

    def _profiles(self) -> None:
        used = self._profile(Options()).name
        for profile in known_profiles().values():
            mark = "*" if profile.name == used else " "
            key = f"key in {profile.api_key_env}" if profile.api_key_env else "no key"
            model = profile.model or "no model named"
            print(f"{mark} {profile.name:<16} {profile.base_url:<34} {key:<24} {model:<16} {profile.source}")
        if used not in known_profiles():
            print(f"* {used}: {self._profile(Options()).base_url}")

    def _models(self, name: str | None = None) -> None:
        client = self._client(Options(profile=name))
        models = client.models()
        for model in models:
            print(one_line(model.id))
        if not models:
            print(f"{client.name} lists no models")

    def _trust(self, name: str) -> None:
        profile = find_profile(name)
        if profile.api_key_env is None:
            raise OptionError(f"{name} names no key: there is nothing to agree to")
        trust(profile)
        print(f"{profile.api_key_env} may be sent to {profile.origin}")

    def _show_last(self) -> Completion | None:
        if self.last is None:
            print("there is no completion yet")
        return self.last


class DryRun:
    """A request that was not sent; shows what would go over the wire, without the key."""

    def __init__(self, client: Client, request: CompletionRequest) -> None:
        self.request = request
        self._client = client

    def __repr__(self) -> str:
        body = json.dumps(self.request.body(), ensure_ascii=False, indent=2)
        return inert(f"{self._client.endpoint.describe_post()}\n\n{body}")


class Background:
    """An answer that comes while other cells run; `wait()` returns it, `stop()` ends it early."""

    UPDATE_SECONDS = 0.25

    def __init__(self, magics: Session, task: Task) -> None:
        self._magics = magics
        self._task = task
        self._stream = task.client.send(task.request)
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
            if any(completion.texts):
                self._task.bind(completion)
            else:
                self._task.keep(completion)
            self._update(completion)
        except CompletionsError as error:
            self._error = error
            partial = self._stream.ended("error")
            self._task.keep(partial)
            self._update(partial, f"{type(error).__name__}: {error}")

    def _update(self, completion: Completion, line: str = "") -> None:
        if self._handle is None:
            return
        bundle = record(completion)
        if line:
            shown = [bundle["text/plain"]] if completion.text else []
            bundle = {"text/plain": "\n".join([*shown, one_line(line, 2000)])}
        self._handle.update(bundle, raw=True)
