"""The ways in: how a case is asked, what came of it, and what is wrong with that."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

from completions_magic import Client, Completion
from completions_magic.errors import CassetteError, CompletionsError, Interrupted
from completions_magic.events import EVENT_LIMIT

from .fault import KEY, Fault
from .grounds import KEY_VARIABLE, Grounds

PROMPT = "Say"
SETTINGS = {"timeout": 5.0, "retries": 2}
TEN = [KEY[start : start + 10] for start in range(len(KEY) - 9)]


@dataclass
class Outcome:
    """What came of one question: the texts, or the error and what had arrived; and all that a person was shown."""

    texts: tuple[str, ...] = ()
    error: BaseException | None = None
    shown: str = ""


@dataclass
class Asked:
    """What came of all questions of one way, how many there were, and how many requests the server heard."""

    outcomes: list[Outcome]
    questions: int
    heard: int


def outcome(ask: Callable[[], Completion]) -> Outcome:
    """Return what comes of asking in a program."""
    try:
        return Outcome(tuple(ask().texts))
    except (Exception, Interrupted) as error:  # noqa: BLE001  # the judge says whether it may be this one
        partial = getattr(error, "partial", None)
        return Outcome(() if partial is None else tuple(partial.texts), error)


def by_client(fault: Fault, base_url: str, folder: Path, shell: InteractiveShell, **asks) -> list[Outcome]:
    """Ask with `Client`; its chunks are summed by the one who asks."""
    with new_client(fault, base_url) as client:
        return [outcome(lambda: client.complete(PROMPT, **fault.asks, **asks))]


def by_stream(fault: Fault, base_url: str, folder: Path, shell: InteractiveShell) -> list[Outcome]:
    """Ask with `Client.stream` and add its chunks."""
    with new_client(fault, base_url) as client:
        return [outcome(lambda: Completion.sum(client.stream(PROMPT, **fault.asks)))]


def by_magic(fault: Fault, base_url: str, folder: Path, shell: InteractiveShell) -> list[Outcome]:
    """Ask with a `%%complete` cell, and look at its variable."""
    shell.user_ns.pop("it", None)
    options = {**SETTINGS, **fault.settings, **fault.asks}
    limit = options.pop("event_limit", EVENT_LIMIT)
    shell.run_cell(f"%config CompletionsMagics.event_limit = {limit}").raise_error()
    line = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        ran = shell.run_cell(
            f"%%complete -o it -m m --base-url {base_url} --api-key-env {KEY_VARIABLE} {line}\n{PROMPT}"
        )
    bound = shell.user_ns.get("it")
    texts = () if bound is None else tuple(bound.texts)
    return [Outcome(texts, ran.error_in_exec or ran.error_before_exec, written.getvalue())]


def by_batch(fault: Fault, base_url: str, folder: Path, shell: InteractiveShell) -> list[Outcome]:
    """Ask twice at a time with `Client.complete_many`; the second is not asked where the first was refused before."""
    with new_client(fault, base_url) as client:
        batch = client.complete_many([PROMPT, f"{PROMPT} it"], concurrency=2, **fault.asks)
    return [
        Outcome(() if row.completion is None else tuple(row.completion.texts), row.error, batch.plain())
        for row in batch
        if not batch.ended or row.error is not None
    ]


def by_cassette(fault: Fault, base_url: str, folder: Path, shell: InteractiveShell) -> list[Outcome]:
    """Ask while a cassette records; then replay it, which must give the same or, of a failure, nothing."""
    path = folder / f"{base_url.rsplit('/', 2)[1]}.jsonl"
    with new_client(fault, base_url, cassette=path) as client:
        recorded = outcome(lambda: client.complete(PROMPT, stream=True, **fault.asks))
    recorded.shown = path.read_text("utf-8") if path.exists() else ""
    with new_client(fault, base_url, cassette=path, record="none") as client:
        replayed = outcome(lambda: client.complete(PROMPT, stream=True, **fault.asks))
    may_be_missing = recorded.error is not None or not fault.recorded
    return [recorded] if may_be_missing and isinstance(replayed.error, CassetteError) else [recorded, replayed]


def new_client(fault: Fault, base_url: str, **settings) -> Client:
    """Return a client for one case."""
    return Client(base_url=base_url, api_key=KEY, model="m", **{**SETTINGS, **fault.settings, **settings})


WAYS = {"client": by_client, "stream": by_stream, "magic": by_magic, "batch": by_batch, "cassette": by_cassette}


def ask(fault: Fault, way: str, grounds: Grounds, folder: Path, shell: InteractiveShell) -> Asked:
    """Ask for one case in one way."""
    base_url = grounds.base_url(fault)
    outcomes = WAYS[way](fault, base_url, folder, shell)
    return Asked(outcomes, len(outcomes) if way == "batch" else 1, grounds.server.heard_at(base_url))


def problems(fault: Fault, asked: Asked) -> Iterator[str]:
    """Yield what is not as the case says it must be."""
    for came in asked.outcomes:
        yield from _leaks(came)
        if fault.error is None:
            if came.error is not None:
                yield f"{came.error!r} instead of a text"
            elif came.texts != fault.texts:
                yield f"the text is {str(came.texts)[:200]}, not {fault.texts}"
        elif type(came.error) is not fault.error:
            yield f"{came.error!r} and {str(came.texts)[:200]} instead of {fault.error.__name__}"
        else:
            yield from _error_problems(fault, came)
    if fault.heard is not None and asked.heard != fault.heard * asked.questions:
        yield f"{asked.heard} requests for {asked.questions} questions, not {fault.heard} each"


def _error_problems(fault: Fault, came: Outcome) -> Iterator[str]:
    error = came.error
    assert isinstance(error, CompletionsError)
    missing = [word for word in fault.words if word not in str(error)]
    if missing:
        yield f"{missing} not in {error}"
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", str(error)) or len(str(error)) > 2000:
        yield f"the message is not one clear line: {str(error)!r}"
    if came.texts != fault.partial:
        yield f"{came.texts} is kept, not {fault.partial}"
    if fault.status is not None and error.status != fault.status:
        yield f"the status is {error.status}, not {fault.status}"
    if error.endpoint is None or error.endpoint not in str(error):
        yield f"the endpoint {error.endpoint} is not named in {error}"


def _leaks(came: Outcome) -> Iterator[str]:
    seen = "\n".join([*came.texts, came.shown, str(came.error), repr(came.error), repr(vars(came.error or came))])
    if any(piece in seen for piece in TEN):
        yield "a piece of the key is shown"
