"""The embedded endpoint: the completions API as one WSGI application over the embedded model."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from random import Random
from typing import Any

import msgspec

from ..errors import PromptError
from ..schema import KNOBS, Choice, Completion, Prompt, SamplingParameters, Usage, check_prompt
from .continuation import Settings, Text, describe, draw, infill, score
from .model import CONTEXT_LENGTH, NAME, LanguageModel, pocket

MOST_PROMPTS = 2048
GLANCE = 16
"""Tokens between two looks at whether the client is still there."""
BODY_LIMIT = 4 * 2**20

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Refusal(Exception):  # noqa: N818  # an answer, not a failure
    """An answer in the API's error shape: status, message, and the parameter it is about."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return the error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class App:
    """The WSGI application; `aliases` are further names of the model. The model is learned at the first request."""

    def __init__(self, learn: Callable[[], LanguageModel] = pocket, *, aliases: Iterable[str] = ()) -> None:
        self._learn = learn
        self.names = [NAME, *aliases]

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; every failure is a JSON error object, never a trace."""
        try:
            answer = self._route(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), environ)
        except Refusal as refusal:
            return send_json(start_response, refusal.status, refusal.body())
        if isinstance(answer, dict):
            return send_json(start_response, 200, answer)
        start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")])
        return answer

    def _route(self, method: str, path: str, environ: Mapping[str, Any]) -> dict[str, Any] | Iterator[bytes]:
        posts = {"/v1/completions": self._complete, "/tokenize": self._tokenize, "/detokenize": self._detokenize}
        if path in posts or path == "/v1/models" or path.startswith("/v1/models/"):
            wanted = "POST" if path in posts else "GET"
            if method != wanted:
                raise Refusal(405, f"{path} takes {wanted}")
        if path in posts:
            return posts[path](_read_json(environ), environ)
        if path == "/v1/models":
            return {"object": "list", "data": [_model(name) for name in self.names]}
        if path.startswith("/v1/models/"):
            return _model(self._known(path.removeprefix("/v1/models/")))
        raise Refusal(404, f"there is nothing at {path[:80]!r}: POST /v1/completions, GET /v1/models")

    def _known(self, name: object) -> str:
        if not isinstance(name, str):
            raise Refusal(400, "model is required: the name of a model, as text", param="model")
        if name not in self.names:
            known = ", ".join(self.names)
            shown = repr(name[:80]).encode("ascii" if not name.isprintable() else "utf-8", "backslashreplace").decode()
            message = f"the model {shown} does not exist; there is: {known}"
            raise Refusal(404, message, param="model", code="model_not_found")
        return name

    def _complete(self, body: dict[str, Any], environ: Mapping[str, Any]) -> dict[str, Any] | Iterator[bytes]:
        name = self._known(body.get("model"))
        parameters = _parameters(body)
        model = self._learn()
        prompts = _prompts(body.get("prompt"), model)
        settings = Settings.of(parameters)
        stream = parameters.to_dict().get("stream", False)
        _check_together(settings, prompts, len(model.vocabulary), stream=stream)
        # waitress says so; in process nobody goes.
        gone = environ.get("waitress.client_disconnected", lambda: False)
        run = Run(model, settings, prompts, gone=gone)
        head: dict[str, Any] = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": model.fingerprint,
        }
        if settings.logprobs is not None:
            # As vLLM calls log-probabilities that are the model's own, before temperature and penalties.
            head["extra"] = {"logprobs_mode": "raw_logprobs"}
        if stream:
            wanted = parameters.to_dict().get("stream_options", {}).get("include_usage", False)
            return _events(run, head, with_usage=bool(wanted))
        whole = Completion.sum(Completion(choices=[choice], **head) for choice in run.choices())
        whole.usage = run.usage
        return whole.to_dict()

    def _tokenize(self, body: dict[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise Refusal(400, "prompt is required: a text", param="prompt")
        tokens = self._learn().vocabulary.encode(prompt)
        return {"count": len(tokens), "max_model_len": CONTEXT_LENGTH, "tokens": tokens}

    def _detokenize(self, body: dict[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
        vocabulary = self._learn().vocabulary
        try:
            tokens = msgspec.convert(body.get("tokens"), list[int])
        except msgspec.ValidationError:
            raise Refusal(400, "tokens is required: a list of token ids", param="tokens") from None
        if not all(0 <= token < len(vocabulary) for token in tokens):
            raise Refusal(400, f"a token id is 0 to {len(vocabulary) - 1}", param="tokens")
        return {"prompt": vocabulary.decode(tokens).decode(errors="replace")}


class Run:
    """The choices of one request, grown a token at a time in turn; `usage` is whole when they have ended."""

    def __init__(
        self,
        model: LanguageModel,
        settings: Settings,
        prompts: list[tuple[list[int], str]],
        *,
        seed: str | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._gone = gone
        self._model = model
        self._settings = settings
        self._prompts = prompts
        # One generator of random numbers a choice, so that it does not matter in which order they grow.
        self._seed = seed or (secrets.token_hex(16) if settings.seed is None else str(settings.seed))
        self.usage = Usage(prompt_tokens=sum(len(tokens) for tokens, _ in prompts))

    def choices(self) -> Iterator[Choice]:
        """Yield pieces of the choices; those of one index in order, the last with its finish_reason."""
        settings = self._settings
        if settings.best_of > settings.n:
            yield from self._best()
        else:
            growing = [
                self.grow(at, number, at * settings.n + number)
                for at in range(len(self._prompts))
                for number in range(settings.n)
            ]
            while growing:
                going = []
                for choice in growing:
                    piece = next(choice, None)
                    if piece is not None:
                        yield piece
                        going.append(choice)
                growing = going
        self.usage.total_tokens = self.usage.prompt_tokens + self.usage.completion_tokens

    def grow(self, at: int, number: int, index: int) -> Iterator[Choice]:
        """Yield the pieces of one choice: the `number`-th of prompt `at`."""
        settings, model = self._settings, self._model
        tokens, prompt = self._prompts[at]
        if settings.echo:
            yield self._echo(tokens, prompt, index)
        random = Random(f"{self._seed}/{at}/{number}")
        reading = model.read(tokens)
        text = Text(model.vocabulary, settings, index, len(prompt) if settings.echo else 0)
        how = (model, reading, settings, random)
        steps = infill(*how, self._glance) if settings.suffix else draw(*how)
        drawn = 0
        for step in steps:
            if drawn % GLANCE == 0:
                self._glance()
            drawn += 1
            self.usage.completion_tokens += 1
            piece = text.push(step)
            if piece is not None:
                yield piece
            if text.stopped:
                return
        yield text.finish("length" if drawn == settings.max_tokens else "stop")

    def _glance(self) -> None:
        if self._gone():
            raise Refusal(408, "the client has gone")

    def _echo(self, tokens: list[int], prompt: str, index: int) -> Choice:
        vocabulary, count = self._model.vocabulary, self._settings.logprobs
        if count is None:
            return Choice(prompt, index)
        offsets, decoder, length = [], codecs.getincrementaldecoder("utf-8")("replace"), 0
        for token in tokens:
            offsets.append(length)
            length += len(decoder.decode(vocabulary.pieces[token]))
        return Choice(prompt, index, None, describe(score(self._model, tokens), offsets, count, vocabulary))

    def _best(self) -> Iterator[Choice]:
        settings = self._settings
        scored = replace(settings, echo=False, logprobs=settings.logprobs or 0)
        for at in range(len(self._prompts)):
            run = Run(self._model, scored, self._prompts, seed=self._seed, gone=self._gone)
            drafts = [
                Completion.sum(Completion(choices=[piece]) for piece in run.grow(at, number, 0)).choices[0]
                for number in range(settings.best_of)
            ]
            self.usage.completion_tokens += run.usage.completion_tokens
            drafts.sort(key=lambda draft: -_mean_logprob(draft))
            for number, draft in enumerate(drafts[: settings.n]):
                index = at * settings.n + number
                if settings.echo:
                    yield self._echo(*self._prompts[at], index)
                yield self._best_choice(draft, index, self._prompts[at][1])

    def _best_choice(self, draft: Choice, index: int, prompt: str) -> Choice:
        draft.index = index
        if self._settings.logprobs is None:
            draft.logprobs = None
        elif draft.logprobs is not None and self._settings.echo:
            draft.logprobs.text_offset = [offset + len(prompt) for offset in draft.logprobs.text_offset]
        return draft


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "completions-magic"}


def _mean_logprob(choice: Choice) -> float:
    scores = [value for value in choice.logprobs.token_logprobs if value is not None] if choice.logprobs else []
    return sum(scores) / len(scores) if scores else float("-inf")


def _events(run: Run, head: Mapping[str, Any], *, with_usage: bool) -> Iterator[bytes]:
    with contextlib.suppress(Refusal):  # the client has gone: nobody reads how the stream ends
        for choice in run.choices():
            chunk = Completion(choices=[choice], **head).to_dict()
            yield _event({**chunk, "usage": None} if with_usage else chunk)
        if with_usage:
            yield _event(Completion(choices=[], usage=run.usage, **head).to_dict())
        yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def send_json(start_response: StartResponse, status: int, answer: dict[str, Any]) -> list[bytes]:
    """Answer with a JSON object."""
    body = msgspec.json.encode(answer)
    phrase = f"{status} {HTTPStatus(status).phrase}"
    start_response(phrase, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _read_json(environ: Mapping[str, Any]) -> dict[str, Any]:
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit():
        raise Refusal(400, "Content-Length is not a number")
    if int(length) > BODY_LIMIT:
        raise Refusal(413, f"the body is larger than {BODY_LIMIT:,} bytes")
    try:
        body = json.loads(environ["wsgi.input"].read(int(length)).decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body is not a JSON object")
    for name, value in body.items():
        if name == "model":
            continue
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            param = name.encode(errors="replace").decode()[:80]
            raise Refusal(400, f"{param} holds half a surrogate pair, which is no text", param=param) from None
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: programs differ in which of its values they take."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise Refusal(400, "a name stands twice in one object")
    return members


def _parameters(body: Mapping[str, Any]) -> SamplingParameters:
    known: dict[str, Any] = {}
    for name, value in body.items():
        if name in ("model", "prompt") or value is None:
            continue
        if name not in KNOBS:
            raise Refusal(400, f"there is no parameter {name[:80]!r}", param=name[:80])
        try:
            known[name] = KNOBS[name].check(value)
        except ValueError as error:
            raise Refusal(400, f"{name} {error}", param=name) from None
    _check_pairs(known)
    return SamplingParameters(**known)


def _check_pairs(known: Mapping[str, Any]) -> None:
    """Refuse parameters that do not go with each other, or hold what their type does not show."""
    if 0 < known.get("best_of", 0) < known.get("n", 1):
        raise Refusal(400, "best_of takes at least n", param="best_of")
    if not all(re.fullmatch("[0-9]{1,9}", token) for token in known.get("logit_bias", {})):
        raise Refusal(400, "logit_bias takes token ids, as text", param="logit_bias")
    options = known.get("stream_options", {})
    if options and not known.get("stream"):
        raise Refusal(400, "stream_options goes with stream only", param="stream_options")
    if not isinstance(options.get("include_usage", False), (bool, type(None))):
        raise Refusal(400, "stream_options.include_usage takes true or false", param="stream_options")


def _prompts(value: object, model: LanguageModel) -> list[tuple[list[int], str]]:
    """Return each prompt as token ids and text."""
    try:
        prompt: Prompt = check_prompt("" if value is None else value)
    except PromptError as error:
        raise Refusal(400, str(error), param="prompt") from None
    listed: list[Any] = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    if len(listed) > MOST_PROMPTS:
        raise Refusal(400, f"a request holds at most {MOST_PROMPTS:,} prompts", param="prompt")
    prompts = []
    for one in listed:
        if isinstance(one, str):
            prompts.append((model.vocabulary.encode(one), one))
            continue
        if not all(0 <= token < len(model.vocabulary) for token in one):
            raise Refusal(400, f"a token id is 0 to {len(model.vocabulary) - 1}", param="prompt")
        prompts.append((one, model.vocabulary.decode(one).decode(errors="replace")))
    return prompts


def _check_together(settings: Settings, prompts: list[tuple[list[int], str]], size: int, *, stream: bool) -> None:
    """Refuse what no single parameter shows."""
    if settings.max_tokens == 0 and not settings.echo:
        raise Refusal(400, "max_tokens takes 0 only with echo", param="max_tokens")
    if stream and settings.best_of > settings.n:
        raise Refusal(400, "best_of cannot be streamed", param="best_of")
    if not all(0 <= token < size for token in settings.logit_bias):
        raise Refusal(400, f"logit_bias takes token ids from 0 to {size - 1}", param="logit_bias")
    longest = max(len(tokens) for tokens, _ in prompts)
    if longest + settings.max_tokens > CONTEXT_LENGTH:
        message = (
            f"the prompt's {longest:,} tokens and max_tokens {settings.max_tokens:,} are more than {CONTEXT_LENGTH:,}"
        )
        raise Refusal(400, message, param="max_tokens", code="context_length_exceeded")
