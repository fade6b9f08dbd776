"""A transport that records the interactions of another one, and replays them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import httpx

from .answer import AnswerReader
from .difference import distance, in_words, word_diff
from .errors import CassetteError, CompletionsError, ConfigurationError, nearest, shorten
from .key import ApiKey
from .schema import Completion, Growing
from .tape import Asked, Interaction, Raw, Tape, asked, canonical

log = logging.getLogger("completions_magic")

RecordMode = Literal["none", "once", "new_episodes", "all"]
MODES: tuple[RecordMode, ...] = get_args(RecordMode)
KEPT_HEADERS = ("content-type", "content-encoding")
"""All others may name an account, a session or a key."""
PASSING = (401, 402, 403, 407, 408, 409, 425, 429)
"""Refusals that are about who asks and when, not about what is asked."""
NEAREST_OF = 1000
REPLAYED = {"replayed": True}
"""The extensions of a response that was not asked for."""
RECORDING = "recording"
"""The extension of a response that is recorded: who reads it may say what it spells, which need not be read twice."""
ESCAPE = re.compile(r"\\(?:u00([0-7][0-9A-Fa-f])|/)")


def check_mode(mode: str) -> RecordMode:
    """Return a record mode; raise ConfigurationError with those that there are."""
    if mode not in MODES:
        raise ConfigurationError(f"a record mode is {', '.join(MODES)}, not {mode[:40]!r}{nearest(mode, MODES)}")
    return mode


@dataclass(frozen=True)
class Change:
    """An interaction that was recorded again: its text then and now."""

    old: str
    new: str

    def __str__(self) -> str:
        return word_diff(self.old, self.new)


class Cassette(httpx.BaseTransport):
    """An httpx transport that records what `transport` answers, while it streams, and replays it from a file.

    `record`, or else COMPLETIONS_RECORD in the environment, is `none` (replay only), `once` (record only where the
    file was empty), `new_episodes` (the default: replay what is there, record the rest) or `all` (record everything
    anew). The k-th of identical requests replays the k-th recording; the request extension `sample` names another.
    Replay is at once, or with `pace` 1.0 as slow as it was recorded, with 2.0 twice as slow. Host, port and headers
    of a request are neither compared nor written. Raises CassetteError, and from `transport` what that raises.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Tape,
        transport: httpx.BaseTransport | Callable[[], httpx.BaseTransport] | None = None,
        *,
        record: str | None = None,
        pace: float = 0.0,
    ) -> None:
        self.tape = path if isinstance(path, Tape) else Tape(path)
        self.record = check_mode(record or os.environ.get("COMPLETIONS_RECORD") or "new_episodes")
        self.pace = pace
        self.changes: list[Change] = []
        self._transport = transport
        self._key: ApiKey | None = None
        self._lock = threading.Lock()

    def around(
        self,
        transport: httpx.BaseTransport | Callable[[], httpx.BaseTransport],
        *,
        record: str | None = None,
    ) -> Cassette:
        """Return a cassette of the same file, calls and settings around another transport."""
        cassette = Cassette(self.tape, transport, record=record or self.record, pace=self.pace)
        cassette.changes = self.changes
        return cassette

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Replay the answer to `request`, or have it answered and record that."""
        wanted = asked(request.method, request.url.raw_path.decode("ascii"), request.read())
        sample = request.extensions.get("sample")
        call = self.tape.claim(wanted) if sample is None else int(sample)
        take = _Take(self, wanted, call, claimed=sample is None)
        try:
            if self.record != "all":
                found = self.tape.find(wanted, call)
                if found is not None:
                    return _replayed(found, self.pace)
            self._check_may_ask(wanted, call)
            return self._record(request, take)
        except BaseException:
            take.drop()
            raise

    def close(self) -> None:
        """Close the transport behind."""
        if isinstance(self._transport, httpx.BaseTransport):
            self._transport.close()

    def _record(self, request: httpx.Request, take: _Take) -> httpx.Response:
        transport = self._behind()
        self.tape.prepare()
        take.key = self._key_of(request)
        response = transport.handle_request(request)
        status = response.status_code
        passing = status in PASSING or response.headers.get("x-should-retry", "").lower() == "true"
        if not response.is_success and (passing or not 400 <= status < 500):
            take.drop()
            return response
        return _Answer(
            status,
            headers=response.headers,
            stream=_Recorded(response, take),
            extensions={**response.extensions, RECORDING: take.spell},
            take=take,
        )

    def _key_of(self, request: httpx.Request) -> ApiKey | None:
        word, _, value = request.headers.get("authorization", "").partition(" ")
        if word.lower() != "bearer" or not value.strip():
            return None
        known = self._key  # nearly always the same, and costly to make
        if known is None or known.reveal() != value.strip():
            known = self._key = ApiKey(value)
        return known

    def _behind(self) -> httpx.BaseTransport:
        with self._lock:
            if not isinstance(self._transport, httpx.BaseTransport):
                if self._transport is None:
                    raise CassetteError(f"{self.tape.name} has no endpoint behind it to ask")
                self._transport = self._transport()
            return self._transport

    def asks(self, wanted: Asked, call: int) -> bool:
        """Say whether this call would be asked: neither replayed nor refused."""
        place = None if self.record == "all" else self.tape.calls(wanted).get(call)
        return self._may_ask and (place is None or place.cut)

    def keep(self, interaction: Interaction) -> None:
        """Write an interaction, and note how it differs from the one whose place it takes."""
        old = self.tape.add(interaction, again=self.record == "all")
        if old is not None and old.text != interaction.text:
            self.changes.append(Change("\n".join(old.text), "\n".join(interaction.text)))

    def _check_may_ask(self, wanted: Asked, call: int) -> None:
        """Raise CassetteError, which says what is recorded instead, where the mode lets nothing be asked."""
        if not self._may_ask:
            raise self._not_recorded(wanted, call)

    @property
    def _may_ask(self) -> bool:
        return self.record in ("all", "new_episodes") or (self.record == "once" and self.tape.was_empty)

    def _not_recorded(self, wanted: Asked, call: int) -> CassetteError:
        start = f"{self.tape.name} does not hold this request (record mode {self.record})"
        places = self.tape.calls(wanted)
        whole = [number for number, place in places.items() if not place.cut]
        if whole:
            times = "once" if len(whole) == 1 else f"{len(whole)} times"
            return CassetteError(
                f"{self.tape.name} holds this request {times}, and this is call {call}: "
                f"--sample {whole[0]} replays one, %completions cassette rewind begins again"
            )
        if places:
            return CassetteError(f"{start}: its answer was cut when it was recorded; --record new_episodes asks again")
        last = self.tape.requests(NEAREST_OF)
        near = min(last, key=lambda line: distance(_fields(wanted), _fields(line[1])), default=None)
        if near is None:
            return CassetteError(f"{start}: it is {'empty' if self.tape.path.exists() else 'not there'}")
        number, other = near
        return CassetteError(f"{start}; the nearest is line {number}: {in_words(_fields(wanted), _fields(other))}")


class _Take:
    """One recording under way: what came and when, written once when the answer is closed."""

    def __init__(self, cassette: Cassette, request: Asked, call: int, *, claimed: bool) -> None:
        self.key: ApiKey | None = None
        self.chunks: list[tuple[int, str | Raw]] = []
        self._cassette = cassette
        self._request = request
        self._call = call
        self._claimed = claimed
        self._start = time.monotonic()
        self._done = False
        self.whole = False
        self.failure: CassetteError | None = None
        self._spelled: tuple[Completion, bool] | None = None

    def spell(self, said: Completion, *, ended: bool) -> None:
        """Take from who has read the answer what it spells, and whether it came to its end."""
        self._spelled = said, ended

    def add(self, piece: bytes) -> None:
        """Keep a piece as it came."""
        self.chunks.append((round(1000 * (time.monotonic() - self._start)), _as_text(piece)))

    def drop(self) -> None:
        """Record nothing; the next identical request is this call."""
        self._done = True
        if self._claimed:
            self._cassette.tape.release(self._request, self._call)

    def save(self, response: httpx.Response) -> None:
        """Write the interaction; one that is not whole is marked as cut. What fails is kept in `failure`."""
        if self._done:
            return
        if not self.chunks and (response.is_success or not self.whole):
            self.drop()
            return
        self._done = True
        try:
            self._write(response)
        except CassetteError as error:
            if self._claimed:
                self._cassette.tape.release(self._request, self._call)
            self.failure = error

    def _write(self, response: httpx.Response) -> None:
        headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        interaction = Interaction(
            request=self._request,
            call=self._call,
            status=response.status_code,
            headers=headers,
            chunks=self.chunks,
        )
        said, ended = self._spelled or _said(interaction)
        interaction.text = said.texts
        completion = response.is_success and self._request.path.partition("?")[0].endswith("/completions")
        interaction.cut = not ended if completion else not self.whole
        tape = self._cassette.tape
        if interaction.cut:
            self.drop()
        if self.key is not None and _shows(self.key, interaction, said):
            log.warning("%s: the key is in the request or in its answer, so neither is recorded", tape.name)
            return
        self._cassette.keep(interaction)


class _Answer(httpx.Response):
    """A response whose closing says that it could not be recorded; its reading does not, so that nothing is lost."""

    def __init__(self, *arguments: Any, take: _Take, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._take = take

    def close(self) -> None:
        """Close the answer; raise CassetteError where it could not be written."""
        reading = self._take.whole and not self.is_closed  # httpx closes what has been read to its end
        super().close()
        failure = self._take.failure
        if failure is not None and not reading:
            self._take.failure = None
            if self.is_success:
                raise failure
            log.warning("%s", failure)  # what the endpoint refused is the greater news


class _Recorded(httpx.SyncByteStream):
    """The body of a response, handed on piece by piece and kept."""

    def __init__(self, response: httpx.Response, take: _Take) -> None:
        self._response = response
        self._take = take

    def __iter__(self) -> Iterator[bytes]:
        stream = self._response.stream
        for piece in stream if isinstance(stream, httpx.SyncByteStream) else ():
            self._take.add(piece)
            yield piece
        self._take.whole = True

    def close(self) -> None:
        """Close the answer, then write what came of it."""
        try:
            self._response.close()
        finally:
            self._take.save(self._response)


class _Replayed(httpx.SyncByteStream):
    def __init__(self, interaction: Interaction, pace: float) -> None:
        self._interaction = interaction
        self._pace = pace

    def __iter__(self) -> Iterator[bytes]:
        start = time.monotonic()
        for at, piece in self._interaction.pieces():
            if self._pace:
                time.sleep(max(0.0, start + self._pace * at / 1000 - time.monotonic()))
            yield piece


def _replayed(interaction: Interaction, pace: float) -> httpx.Response:
    if interaction.status < 300 and interaction.text != _said(interaction)[0].texts:
        raise CassetteError(
            f"the recording of {shorten(json.dumps(interaction.request.body, ensure_ascii=False), 80)} was edited: "
            "its text is not what its chunks spell; record it again with --record all"
        )
    return httpx.Response(
        interaction.status, headers=interaction.headers, stream=_Replayed(interaction, pace), extensions=REPLAYED
    )


def _as_text(piece: bytes) -> str | Raw:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return Raw(piece)


def _shows(key: ApiKey, interaction: Interaction, said: Completion) -> bool:
    """Say whether a piece of the key is in what would be written, or in what that spells."""
    raw = body = b"".join(piece for _, piece in interaction.pieces()).decode("utf-8", "replace")
    if "content-encoding" in interaction.headers:
        body = b"".join(_decoded(interaction)).decode("utf-8", "replace")
    body = ESCAPE.sub(lambda match: chr(int(match[1] or "2f", 16)), body)
    asked_for = interaction.request.path + canonical(interaction.request.body)
    spelled = ["".join(choice.logprobs.tokens) for choice in said.choices if choice.logprobs is not None]
    texts = (raw, body, asked_for, *said.texts, *spelled, *interaction.headers.values())
    return any(key.scrub(text) != text for text in texts)


def _decoded(interaction: Interaction) -> Iterator[bytes]:
    """Yield the body without its compression, as far as it can be read."""
    response = httpx.Response(200, headers=interaction.headers, stream=_Replayed(interaction, 0))
    with contextlib.suppress(httpx.HTTPError):
        yield from response.iter_bytes()


def _said(interaction: Interaction) -> tuple[Completion, bool]:
    """Return what was answered, as far as it came, and whether it came to its end."""
    growing = Growing()
    reader = AnswerReader(choices=_choices(interaction.request.body))
    try:
        response = httpx.Response(200, headers=interaction.headers, stream=_Replayed(interaction, 0))
        for chunk in reader.chunks(response.iter_bytes()):
            growing.add(chunk)
        reader.check_end(growing)
    except (CompletionsError, httpx.HTTPError):
        return growing.completion(), False
    return growing.completion(), True


def _choices(body: Any) -> int | None:
    """Return 1 where one choice was asked for, and None where it is not known to be one."""
    if not isinstance(body, dict) or body.get("n", 1) != 1:
        return None
    prompt = body.get("prompt")
    return None if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def _fields(request: Asked) -> dict[str, Any]:
    body = request.body if isinstance(request.body, dict) else {"body": request.body}
    return {"route": f"{request.method} {request.path}", **body}
