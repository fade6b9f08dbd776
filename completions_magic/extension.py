"""What `%load_ext` adds to a shell; everything heavier is imported when the first cell runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import traitlets
from IPython.core.completer import CompletionContext, SimpleMatcherResult, context_matcher
from IPython.core.magic import needs_local_scope, no_var_expand
from traitlets.config import Configurable

if TYPE_CHECKING:
    from .magics import Session

MAGIC = re.compile(r"(?:.*=\s*)?%{1,2}complete\s")
"""A line on which options may be completed."""


class CompletionsMagics(Configurable):
    """The magics' settings, for `%config CompletionsMagics`, and the magics themselves, still asleep."""

    profile = traitlets.Unicode("", help="the endpoint, by name").tag(config=True)
    base_url = traitlets.Unicode("", help="the endpoint, by address, up to /v1").tag(config=True)
    api_key_env = traitlets.Unicode("", help="the environment variable that holds its key").tag(config=True)
    api_key_from = traitlets.Unicode("", help="or where else it is: .env:NAME, keyring:NAME, prompt").tag(config=True)
    allow_http = traitlets.Bool(default_value=False, help="let the key go without TLS").tag(config=True)
    model = traitlets.Unicode("", help="the model").tag(config=True)
    parameters = traitlets.Dict(help="sampling parameters of every request, by name").tag(config=True)
    view = traitlets.Unicode("auto", help="what shows while it comes: auto, widget, text, none").tag(config=True)
    cassette = traitlets.Unicode("", help="record answers in this file, and replay them").tag(config=True)
    record = traitlets.Unicode("new_episodes", help="none, once, new_episodes, all").tag(config=True)
    pace = traitlets.Float(0.0, help="replay at once (0), as slow as recorded (1), slower").tag(config=True)
    connect_timeout = traitlets.Float(10.0, help="longest wait for a connection, in seconds").tag(config=True)
    first_token_timeout = traitlets.Float(
        None, allow_none=True, help="longest wait for the first token; None: as timeout"
    ).tag(config=True)
    timeout = traitlets.Float(60.0, help="longest silence between tokens, in seconds").tag(config=True)
    retries = traitlets.Int(2, help="how often to try again before anything has arrived").tag(config=True)
    event_limit = traitlets.Int(8 * 2**20, help="most bytes of one event of an answer").tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(parent=shell)
        self.shell = shell
        self.typed = ""
        self.cell_id: str | None = None
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The working part, made at the first use."""
        if self._session is None:
            from .magics import Session

            self._session = Session(self, self.shell)
        return self._session

    def note_cell(self, info: Any) -> None:
        """Keep the cell as it was typed: IPython strips `>>> ` and `In [1]: ` from what a magic gets."""
        self.typed = info.raw_cell if isinstance(info.raw_cell, str) else ""
        self.cell_id = getattr(info, "cell_id", None)

    def forget_cell(self, _result: Any = None) -> None:
        """Forget the cell when it has ended: what runs between cells is not part of it."""
        self.typed = ""

    def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            self._session.close()


def load(shell: Any) -> None:
    """Register the magics, their settings and Tab completion; a second time does nothing."""
    if _loaded(shell):
        return
    magics = CompletionsMagics(shell)

    @no_var_expand
    @needs_local_scope
    def complete(line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        return magics.session.complete(line, cell, local_ns)

    @no_var_expand
    def completions(line: str) -> Any:
        return magics.session.completions(line)

    @context_matcher(identifier="completions_magic")  # type: ignore[untyped-decorator]  # IPython's is
    def match_options(context: CompletionContext) -> SimpleMatcherResult:
        if context.cursor_line != 0 or not MAGIC.match(context.full_text):
            return {"completions": []}
        from .tab import match

        return match(context, magics.session)

    # IPython's inspector asks an object's own getdoc first: the table is not built before someone wants it.
    complete.getdoc = lambda: magics.session.help  # type: ignore[attr-defined]  # functions take attributes
    completions.getdoc = lambda: magics.session.manual  # type: ignore[attr-defined]  # functions take attributes
    shell.register_magic_function(complete, "line_cell", "complete")
    shell.register_magic_function(completions, "line", "completions")
    shell.configurables.append(magics)
    shell.events.register("pre_run_cell", magics.note_cell)
    shell.events.register("post_run_cell", magics.forget_cell)
    shell.Completer.custom_matchers.append(match_options)


def unload(shell: Any) -> None:
    """Undo `load`."""
    magics = _loaded(shell)
    if magics is None:
        return
    magics.close()
    shell.configurables.remove(magics)
    shell.events.unregister("pre_run_cell", magics.note_cell)
    shell.events.unregister("post_run_cell", magics.forget_cell)
    shell.Completer.custom_matchers[:] = [
        matcher
        for matcher in shell.Completer.custom_matchers
        if getattr(matcher, "matcher_identifier", "") != "completions_magic"
    ]
    for kind, name in (("line", "complete"), ("cell", "complete"), ("line", "completions")):
        shell.magics_manager.magics[kind].pop(name, None)
        vars(shell.magics_manager.user_magics).pop(name, None)


def _loaded(shell: Any) -> CompletionsMagics | None:
    return next((known for known in shell.configurables if isinstance(known, CompletionsMagics)), None)
