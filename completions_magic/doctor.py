"""The doctor: a few tiny requests that find out what an endpoint honours of the completions API."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .answer import AnswerReader
from .card import (
    ECHO_LOGPROBS,
    PROMPTS,
    STOP,
    STOPS,
    STREAM_ECHO,
    STREAM_LOGPROBS,
    STREAM_USAGE,
    Card,
    Finding,
    Verdict,
)
from .client import Client
from .errors import (
    AnswerError,
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CompletionsError,
    Interrupted,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TooLargeError,
)
from .record import count
from .schema import Completion, CompletionRequest, Usage
from .transport import Watch

log = logging.getLogger("completions_magic")

PROMPT = "Once upon a time"
OTHER = "Roses are red"
SUFFIX = " the end."
TOKENS = 8
DEFAULT_TOKENS = 16
"""What the API generates where max_tokens is not understood."""
NO_STREAM = "there is no stream"
SECONDS = 20.0
ALL_SECONDS = 120.0
ANSWER_BYTES = 2**20
HOPELESS = (APIConnectionError, AuthenticationError, PermissionDeniedError, RateLimitError)
"""Failures that the next request will most likely meet too."""


@dataclass(frozen=True)
class Probe:
    """What finds out about some lines of the card, with at most so many requests and generated tokens."""

    lines: tuple[str, ...]
    ask: Callable[[Patient], Iterable[Finding]]
    requests: int = 1
    tokens: int = TOKENS


@dataclass(frozen=True)
class Reply:
    """An answer: its completion, whether it was an event stream and whole, and in how many chunks it came."""

    completion: Completion
    streamed: bool
    done: bool
    chunks: int

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.completion.text


def price() -> str:
    """Return what an examination costs at most, in words."""
    requests, tokens = (sum(getattr(probe, cost) for probe in PROBES) for cost in ("requests", "tokens"))
    return f"at most {requests} requests, {tokens} generated tokens"


def examine(client: Client, *, seconds: float = SECONDS) -> Card:
    """Ask the endpoint of `client`, keep what it honours, and return it as a card; a failure is a line of the card.

    One request takes at most `seconds`, all of them two minutes. A card on which not even a plain completion came is
    not kept.
    """
    stopped = False
    with Client(
        client.profile,
        api_key=client.endpoint.key,
        transport=client.endpoint.transport,
        **{
            **client.settings,
            "connect_timeout": seconds / 2,
            "first_token_timeout": seconds,
            "timeout": seconds,
            "retries": 0,
        },
    ) as asking:
        patient = Patient(asking)
        try:
            findings = [finding for probe in PROBES for finding in patient.undergo(probe)]
        except KeyboardInterrupt:
            stopped = True
    if stopped:
        # Outside the handler, so that no frame of the transport, which knows the key, hangs on to it.
        raise Interrupted
    card = Card(
        endpoint=client.name,
        base_url=client.profile.base_url,
        model=patient.model or "",
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        requests=patient.requests,
        tokens=patient.tokens,
        findings=findings,
    )
    if card["completion"].verdict == "honoured":
        try:
            card.keep()
        except OSError as error:
            log.warning("the capability card of %s cannot be kept: %s", client.name, error.strerror)
    return card


class Patient:
    """An endpoint that is examined: what it was asked, and what the later probes need of its earlier answers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.model = client.model
        self.plain: Reply | None = None
        self.repeats = False  # that a text comes again at temperature 0
        self.requests = 0
        self.tokens = 0
        self._until = time.monotonic() + ALL_SECONDS
        self._hopeless: list[str] = []

    def undergo(self, probe: Probe) -> list[Finding]:
        """Return what a probe finds; a failure is what it finds of all its lines."""
        try:
            return list(probe.ask(self))
        except CompletionsError as error:
            cleaned = self.client.endpoint.cleaned(error)
            said = cleaned.message.removeprefix(f"{self.client.name} ")
            return [Finding(line, _verdict(cleaned), said) for line in probe.lines]

    def ask(self, prompt: object = PROMPT, **parameters: Any) -> Reply:
        """Return the answer to a request of few tokens, greedy unless said otherwise; raise CompletionsError."""
        parameters = {"max_tokens": TOKENS, "temperature": 0, **parameters}
        request = CompletionRequest.build(prompt, model=self.model, **parameters)
        endpoint = self.client.endpoint
        reader = AnswerReader(endpoint.key, name=endpoint.name, choices=request.choices)
        with self._asking() as watch:
            response = endpoint.open("POST", "/completions", watch, request.encode())
            try:
                chunks = list(reader.chunks(_bounded(endpoint.pieces(response, watch), endpoint.name)))
            finally:
                response.close()
        completion = Completion.sum(chunks)
        if completion.usage is not None:
            self.tokens += completion.usage.completion_tokens
        texts = sum(any(chunk.texts) for chunk in chunks)
        return Reply(completion, reader.streamed, reader.done, texts)

    def ask_wrongly(self) -> tuple[int, bytes]:
        """Return status and body of the answer to a request that is none: max_tokens is a word."""
        wrong = {"model": self.model, "prompt": PROMPT, "max_tokens": "many"}
        endpoint = self.client.endpoint
        with self._asking() as watch:
            response = endpoint.send("POST", "/completions", watch, json.dumps(wrong).encode())
            try:
                return response.status_code, b"".join(_bounded(endpoint.pieces(response, watch), endpoint.name))
            finally:
                response.close()

    def models(self) -> list[str]:
        """Return the names of the models that the endpoint lists."""
        with self._asking():
            return [model.id for model in self.client.models()]

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Watch]:
        left = self._until - time.monotonic()
        if len(self._hopeless) > 1:
            raise APITimeoutError(f"not asked, after {self._hopeless[-1]}")
        if left <= 0:
            raise APITimeoutError(f"not asked: {ALL_SECONDS:g} s were over")
        self.requests += 1
        try:
            yield Watch(min(self.client.timeout, left))
        except (*HOPELESS, NotFoundError) as error:
            if isinstance(error, NotFoundError) and self.plain is not None:
                raise  # it is about this request: others are answered
            self._hopeless.append("no answer" if error.status is None else str(error.status))
            raise
        finally:
            self.client.close()  # each on a connection of its own: what one request broke is not the next one's fault
        self._hopeless.clear()


def _bounded(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > ANSWER_BYTES:
            raise TooLargeError(f"{name} sends more than {ANSWER_BYTES:,} bytes for {TOKENS} tokens")
        yield piece


def _verdict(error: CompletionsError) -> Verdict:
    if isinstance(error, (BadRequestError, NotFoundError, AnswerError)):
        return "refused"
    return "unclear" if error.message.startswith("not asked") else "failed"


def _found(name: str, is_honoured: object, honoured: str, ignored: str) -> Finding:
    return Finding(name, "honoured", honoured) if is_honoured else Finding(name, "ignored", ignored)


def _list_models(patient: Patient) -> Iterator[Finding]:
    models = patient.models()
    named = patient.model
    patient.model = named or next(iter(models), None)
    among = "" if named is None else f", {named} {'' if named in models else 'not '}among them"
    yield _found("model list", models, count(len(models), "model") + among, "no models")


def _complete(patient: Patient) -> Iterator[Finding]:
    reply = patient.plain = patient.ask()
    usage = reply.completion.usage
    counted = "without usage" if usage is None else count(usage.completion_tokens, "token")
    if not reply.completion.choices:
        yield Finding("completion", "failed", "an answer without any choice")
    else:
        yield Finding("completion", "honoured", counted if reply.text else f"{counted}, an empty text")
    reason = reply.completion.choices[0].finish_reason if reply.completion.choices else None
    if usage is None and reason != "length":
        yield Finding("max_tokens", "unclear", f"no usage, and the finish_reason {reason}")
    else:
        few = usage is None or usage.completion_tokens <= TOKENS
        yield _found("max_tokens", few, f"finish_reason {reason}", f"asked for {TOKENS} at most, got {counted}")


def _stream(patient: Patient) -> Iterator[Finding]:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    refused = None
    try:
        reply = patient.ask(**asked)
    except BadRequestError as error:
        refused = patient.client.endpoint.cleaned(error)
        reply = patient.ask(stream=True)
    patient.repeats = patient.plain is not None and reply.text == patient.plain.text
    if not reply.streamed:
        yield Finding("stream", "ignored", "one JSON object instead of a stream")
        yield from (Finding(line, "unclear", NO_STREAM) for line in ("[DONE]", STREAM_USAGE))
        return
    pieces = f"the text in {count(reply.chunks, 'chunk')}"
    yield Finding("stream", "honoured", pieces)
    yield _found("[DONE]", reply.done, "the stream ends with it", "the stream ends without it")
    if refused is not None:
        yield Finding(STREAM_USAGE, "refused", refused.message.removeprefix(f"{patient.client.name} "))
    else:
        yield _stream_usage(reply, patient.plain)


def _stream_usage(reply: Reply, plain: Reply | None) -> Finding:
    usage = reply.completion.usage
    whole = plain.completion.usage if plain is not None and plain.text == reply.text else None
    if usage is None or (reply.text and not usage.completion_tokens):
        return Finding(STREAM_USAGE, "ignored", "none came" if usage is None else "it counts no tokens")
    if whole is not None and _counts(usage) != _counts(whole):
        return Finding(
            STREAM_USAGE, "unclear", f"it counts {_counts(usage)}, and {_counts(whole)} for the same text unstreamed"
        )
    return Finding(STREAM_USAGE, "honoured", "it comes when stream_options ask for it")


def _counts(usage: Usage) -> str:
    return f"{usage.prompt_tokens:,} + {count(usage.completion_tokens, 'token')}"


def _count_choices(patient: Patient) -> Iterator[Finding]:
    got = len(patient.ask(n=2, temperature=1).completion.choices)
    yield _found("n", got == 2, "2 choices", f"asked for 2 choices, got {got}")


def _list_prompts(patient: Patient) -> Iterator[Finding]:
    got = len(patient.ask([PROMPT, OTHER]).completion.choices)
    yield _found(PROMPTS, got == 2, "a choice for each", f"asked with 2 prompts, got {count(got, 'choice')}")


def _stop(name: str, spell: Callable[[str], Any]) -> Callable[[Patient], Iterator[Finding]]:
    def ask(patient: Patient) -> Iterator[Finding]:
        # The commonest letter of what it says by itself is most likely to come again. At its end it ends there anyway.
        letters = Counter(sign for sign in (patient.plain.text[1:-1] if patient.plain else "") if sign.isalnum())
        if not letters:
            lacking = "has no letter to stop at" if patient.plain else "has failed"
            yield Finding(name, "unclear", f"the plain completion {lacking}")
            return
        [(letter, _)] = letters.most_common(1)
        reply = patient.ask(stop=spell(letter))
        choice = next(iter(reply.completion.choices), None)
        if choice is not None and letter in choice.text:
            kept = choice.text.count(letter) == 1 and choice.text.endswith(letter) and choice.finish_reason == "stop"
            yield _found(name, kept, f"{letter!r} stays in the text", f"the text goes on after {letter!r}")
        elif choice is not None and choice.finish_reason == "stop":
            yield Finding(name, "honoured", f"the text ends before {letter!r}")
        else:
            yield Finding(name, "unclear", f"the text did not come to {letter!r}")

    return ask


def _suffix(patient: Patient) -> Iterator[Finding]:
    reply, plain = patient.ask(suffix=SUFFIX), patient.plain
    read = [one.completion.usage.prompt_tokens if one and one.completion.usage else 0 for one in (plain, reply)]
    same = plain is not None and reply.text == plain.text and read[0] == read[1]
    if same or patient.repeats:
        yield _found("suffix", not same, "the answer changes with it", "the same answer with and without it")
    else:
        yield Finding("suffix", "unclear", "texts differ at temperature 0 with and without it")


def _echo(patient: Patient) -> Iterator[Finding]:
    yield _echoed("echo", patient.ask(echo=True))


def _stream_echo(patient: Patient) -> Iterator[Finding]:
    reply = patient.ask(echo=True, stream=True)
    yield _echoed(STREAM_ECHO, reply) if reply.streamed else Finding(STREAM_ECHO, "unclear", NO_STREAM)


def _echoed(name: str, reply: Reply) -> Finding:
    is_echoed = reply.text.lstrip().startswith(PROMPT)
    return _found(name, is_echoed, "the prompt comes first", "the prompt does not come back")


def _logprobs(patient: Patient) -> Iterator[Finding]:
    yield _scored("logprobs", patient.ask(logprobs=2))


def _stream_logprobs(patient: Patient) -> Iterator[Finding]:
    reply = patient.ask(logprobs=2, stream=True)
    yield _scored(STREAM_LOGPROBS, reply) if reply.streamed else Finding(STREAM_LOGPROBS, "unclear", NO_STREAM)


def _scored(name: str, reply: Reply) -> Finding:
    choices = reply.completion.choices
    scores = choices[0].logprobs if choices else None
    if scores is not None and "content" in scores.extra:
        return Finding(name, "honoured", "in the shape of chat completions")
    most = max((len(top or {}) for top in scores.top_logprobs), default=0) if scores else 0
    tokens = len(scores.token_logprobs) if scores else 0
    return _found(name, tokens, f"{count(tokens, 'token')}, each with {most} of 2 alternatives", "none came")


def _echo_logprobs(patient: Patient) -> Iterator[Finding]:
    choices = patient.ask(echo=True, logprobs=1, max_tokens=1).completion.choices
    scores = choices[0].logprobs if choices else None
    scored = scores is not None and len(scores.token_logprobs) > 1
    yield _found(ECHO_LOGPROBS, scored, "the prompt's tokens have them", "the prompt's tokens have none")


def _seed(patient: Patient) -> Iterator[Finding]:
    # As wild as the API allows: at 1 many models begin a story with the same words twice anyway.
    first, second = (patient.ask(seed=7, temperature=2).text for _ in range(2))
    if first == second and patient.plain is not None and first == patient.plain.text:
        yield Finding("seed", "unclear", "the same text with and without it")
    else:
        yield _found("seed", first == second, "the same text twice", "two texts with the same seed")


def _errors(patient: Patient) -> Iterator[Finding]:
    status, body = patient.ask_wrongly()
    if status < 400:
        yield Finding("errors", "ignored", f"max_tokens 'many' was answered with {status}")
        return
    shape = _shape(body)
    said = f"{status}, {shape}"
    if status >= 500:
        # Who gets that asks again, with the same mistake.
        yield Finding("errors", "ignored", f"{said}, though the mistake is the request's")
    else:
        yield _found("errors", shape == "the API's error object", said, said)


def _shape(body: bytes) -> str:
    """Return the shape of an error's body, in words."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "an HTML page" if body.lstrip()[:1] == b"<" else "plain text" if body.strip() else "an empty body"
    if not isinstance(said, dict):
        return "JSON of another shape"
    if isinstance(said.get("error"), dict) and isinstance(said["error"].get("message"), str):
        return "the API's error object"
    shapes = {"error": "a text as error", "detail": "FastAPI's detail", "message": "a message without error"}
    return next((words for name, words in shapes.items() if name in said), "JSON of another shape")


PROBES = (
    Probe(("model list",), _list_models, tokens=0),
    Probe(("completion", "max_tokens"), _complete),
    Probe(("stream", "[DONE]", STREAM_USAGE), _stream, requests=2, tokens=2 * TOKENS),
    Probe(("n",), _count_choices, tokens=2 * TOKENS),
    Probe((PROMPTS,), _list_prompts, tokens=2 * TOKENS),
    Probe((STOP,), _stop(STOP, str)),
    Probe((STOPS,), _stop(STOPS, lambda letter: ["\u241e", letter])),
    Probe(("suffix",), _suffix),
    Probe(("echo",), _echo),
    Probe((STREAM_ECHO,), _stream_echo),
    Probe(("logprobs",), _logprobs),
    Probe((STREAM_LOGPROBS,), _stream_logprobs),
    Probe((ECHO_LOGPROBS,), _echo_logprobs, tokens=1),
    Probe(("seed",), _seed, requests=2, tokens=2 * TOKENS),
    Probe(("errors",), _errors, tokens=DEFAULT_TOKENS),
)
