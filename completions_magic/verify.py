"""Run notebooks anew, replaying their cassettes, and say for every completion whether it is what was saved."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CompletionsError, ConfigurationError, Interrupted
from .inert import one_line
from .verdict import Answered, Verdict, judge

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

ASK = "print(__import__('completions_magic.verify', fromlist=['told']).told({since}, live={live}))"
ALIKE = "identical"


def run(paths: Sequence[str], *, live: bool = False) -> int:
    """Print a verdict for every completion of the notebooks; return 0 when all are identical, else 1.

    Replays only, unless a cell says otherwise; with `live` everything is asked again as well, of the endpoints
    themselves, and nothing is written. Raises ConfigurationError where a notebook cannot be run.
    """
    alike = True
    for path in paths:
        found = 0
        for place, verdict in check_notebook(Path(path), live=live):
            print(f"{path} [{place}] {verdict}")
            alike = alike and verdict.kind == ALIKE
            found += 1
        if not found:
            print(f"{path}: no completions")
    return 0 if alike else 1


def check_notebook(path: Path, *, live: bool = False) -> Iterator[tuple[str, Verdict]]:
    """Run a notebook in a kernel of its own; yield (the cell's number, verdict) for each of its completions."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError:
        raise ConfigurationError("verify needs nbclient: pip install 'completions-magic[lab]'") from None
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # it has no types
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise ConfigurationError(f"{path} cannot be read as a notebook: {one_line(str(error), 200)}") from None
    saved = [_saved(cell) for cell in notebook.cells]
    shown = [_shown(cell) for cell in notebook.cells]
    failed_then = [_failed(cell) for cell in notebook.cells]
    failures: dict[int, str] = {}

    def note(cell_index: int, execute_reply: dict[str, Any], **_: Any) -> None:
        content = execute_reply["content"]
        failures[cell_index] = one_line(f"{content.get('ename')}: {content.get('evalue')}", 500)

    folder = {"metadata": {"path": str(path.resolve().parent)}}
    client = NotebookClient(notebook, resources=folder, allow_errors=True, store_widget_state=False, on_cell_error=note)
    seen = 0
    with _kernel(client, path):
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            client.execute_cell(cell, index)
            told = _ask(client, index, seen, live=live)
            seen += len(told)
            for verdict in _verdicts(told, saved[index], shown[index], _shown(cell)):
                yield f"{index + 1}", verdict
            for run_ in told:
                if run_["live"] is not None:
                    yield f"{index + 1}, live", Verdict(*run_["live"])
            if index in failures and not told and not failed_then[index]:
                yield f"{index + 1}", Verdict("failed", failures[index])


@contextlib.contextmanager
def _kernel(client: NotebookClient, path: Path) -> Iterator[None]:
    """Run the notebook's kernel, in which nothing is recorded."""
    from jupyter_client.kernelspec import NoSuchKernel

    environment = {**os.environ, "COMPLETIONS_RECORD": "none"}
    try:
        with client.setup_kernel(env=environment, stderr=subprocess.DEVNULL):
            yield
    except NoSuchKernel as error:
        raise ConfigurationError(f"{path} wants the kernel {error.name!r}, which is not installed here") from None


def _ask(client: Any, index: int, since: int, *, live: bool) -> list[dict[str, Any]]:
    """Return what the kernel tells of the completions since the last time."""
    import nbformat

    ask = nbformat.v4.new_code_cell(ASK.format(since=since, live=live))  # type: ignore[no-untyped-call]  # no types
    client.execute_cell(ask, index, store_history=False)
    lines = [output.text for output in ask.outputs if output.output_type == "stream" and output.name == "stdout"]
    told: list[dict[str, Any]] = json.loads("".join(lines) or "[]")
    return told


def _saved(cell: NotebookNode) -> list[Answered]:
    """Return the completions in a cell's saved outputs."""
    found = []
    for output in cell.get("outputs", []):
        kept = output.get("metadata", {}).get("completions_magic")
        if kept is not None and "request_sha256" in kept:
            text = output.get("data", {}).get("text/plain", "")
            found.append(Answered("".join(text), kept))
    return found


def _shown(cell: NotebookNode) -> str:
    """Return all that a cell shows, as plain text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain") or "" for output in cell.get("outputs", [])]
    return "".join("".join(text) for text in texts)


def _failed(cell: NotebookNode) -> bool:
    """Say whether an error is among a cell's saved outputs."""
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def _pair(told: Sequence[dict[str, Any]], saved: Sequence[Answered]) -> list[Answered | None]:
    """Return the saved completion of each that a cell asked for: of the same request, else the next that is left."""
    rest = list(saved)
    pairs: list[Answered | None] = []
    for run_ in told:
        wanted = run_["provenance"].get("request_sha256")
        same = next((at for at, known in enumerate(rest) if known.provenance.get("request_sha256") == wanted), None)
        pairs.append(None if same is None else rest.pop(same))
    return [rest.pop(0) if found is None and rest else found for found in pairs]


def _verdicts(told: list[dict[str, Any]], saved: list[Answered], shown: str, shows: str) -> Iterator[Verdict]:
    """Yield a verdict for each completion of a cell; those that left no record of their own share one.

    `shown` is all that the cell had shown, `shows` what it shows now.
    """
    together = False
    for run_, old in zip(told, _pair(told, saved), strict=True):
        if old is None and shown and run_["failure"] is None:
            if not together:
                same = {**run_, "text": shows}
                yield _verdict(same, Answered(shown, run_["provenance"]))
            together = True
            continue
        verdict = _verdict(run_, old)
        # What stands beside a completion in its output, such as a panel's settings, is not part of its text.
        yield Verdict(ALIKE) if verdict.kind == "other text" and shows == shown else verdict


def _verdict(told: dict[str, Any], old: Answered | None) -> Verdict:
    new = Answered(told["text"], told["provenance"])
    if told["failure"] is None:
        # What leaves no record, such as a quiet cell, was replayed all the same.
        return judge(new, new if old is None and told["replayed"] else old)
    changed = None if old is None else judge(new, old)
    if changed is not None and changed.kind == "request changed":
        return changed
    return Verdict("not recorded" if told["cassette"] else "failed", told["failure"])


def told(since: int, *, live: bool = False) -> str:
    """Return, as JSON, the completions of this kernel's session from number `since` on."""
    from IPython.core.getipython import get_ipython

    from .extension import CompletionsMagics

    found = [known for known in getattr(get_ipython(), "configurables", ()) if isinstance(known, CompletionsMagics)]
    return json.dumps([_tell(run, live=live) for magics in found for run in magics.session.since(since)])


def _tell(run: Any, *, live: bool) -> dict[str, Any]:
    from .magics import verify

    answered = Answered.of(run.completion)
    again = verify(run) if live and run.failure is None else None
    failure = run.failure
    if isinstance(failure, Interrupted):
        failure = "interrupted"
    return {
        "text": answered.text,
        "provenance": answered.provenance,
        "failure": None if failure is None else one_line(str(failure), 500),
        "cassette": isinstance(failure, CompletionsError) and type(failure).__name__ == "CassetteError",
        "replayed": run.client.cassette is not None,
        "live": None if again is None else (again.kind, again.detail),
    }
