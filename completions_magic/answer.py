"""From the bytes of an answer, streamed or whole, to completions; whatever a server sends, never a wrong text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .errors import AnswerError, DecodeError, StreamError, TooLargeError, shorten
from .events import BOM, EventDecoder
from .key import MASK, ApiKey
from .schema import Completion, Growing

ANSWER_LIMIT = 64 * 2**20
DONE = b"[DONE]"
FIELD = re.compile(rb"(?:data|event|id|retry)?:|(?:data|event|id|retry)[\r\n]")


class AnswerReader:
    """Reads one answer: an event stream or a single JSON object, told apart by their first bytes.

    Content types are not believed: real servers send either under any name.
    """

    def __init__(self, key: ApiKey | None = None, *, name: str = "the endpoint") -> None:
        self._key = key
        self._name = name
        self._done = False
        self._halves: dict[int, str] = {}

    def chunks(self, pieces: Iterable[bytes]) -> Iterator[Completion]:
        """Yield the completions in `pieces` of bytes; raise DecodeError, TooLargeError or AnswerError."""
        pieces = iter(pieces)
        start = _first_bytes(pieces)
        if not start.strip():
            raise StreamError(f"{self._name} sent an empty answer")
        payloads = self._events(start, pieces) if FIELD.match(start) else self._whole(start, pieces)
        for payload in payloads:
            yield self._read(payload)

    def check_end(self, growing: Growing) -> None:
        """Raise when what has come is not a whole answer: cut, or without any choice."""
        if not growing.has_choices:
            raise DecodeError(f"{self._name} answered without any choice")
        if not self._done and not growing.finished():
            raise StreamError(f"{self._name} cut the answer off before its end; what had come is kept")

    def _events(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
        decoder = EventDecoder()
        piece: bytes | None = start
        while piece is not None:
            for payload in decoder.feed(piece):
                if payload.strip() == DONE:
                    self._done = True
                    return
                if payload.strip():
                    yield payload
            piece = next(pieces, None)
        for payload in decoder.flush():
            if payload.strip() == DONE:
                self._done = True
            elif payload.strip():
                yield payload

    def _whole(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
        body = bytearray(start)
        for piece in pieces:
            body += piece
            if len(body) > ANSWER_LIMIT:
                raise TooLargeError(f"{self._name} sent an answer of more than {ANSWER_LIMIT:,} bytes")
        if body.lstrip()[:1] == b"<":
            raise DecodeError(f"{self._name} sent an HTML page instead of JSON: does the base URL end in /v1?")
        self._done = True
        yield bytes(body)

    def _read(self, payload: bytes) -> Completion:
        if self._key is not None and self._key.is_in(payload):
            payload = payload.replace(self._key.reveal().encode(), MASK.encode())
        answer = self._decode(payload)
        if not isinstance(answer, Mapping):
            raise DecodeError(f"{self._name} sent JSON that is no completion: {shorten(repr(answer), 120)}")
        said = error_message(answer)
        if said is not None:
            raise AnswerError(f"{self._name} sent an error inside its answer: {shorten(said, 500)}")
        if "choices" not in answer and "usage" not in answer:
            raise DecodeError(f"{self._name} sent JSON without choices: {shorten(repr(dict(answer)), 120)}")
        return Completion.from_dict(answer)

    def _decode(self, payload: bytes) -> Any:
        try:
            return msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            # The rare payload: NaN, halves of surrogate pairs, bytes that are not UTF-8.
            answer = json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            text = payload[:120].decode("utf-8", "replace")
            raise DecodeError(f"{self._name} sent something that is not JSON: {text!r}") from None
        return self._repair(answer)

    def _repair(self, answer: Any) -> Any:
        """Join halves of surrogate pairs, also from one chunk to the next, and replace those left alone."""
        if isinstance(answer, dict) and isinstance(answer.get("choices"), list):
            for choice in answer["choices"]:
                if isinstance(choice, dict) and isinstance(choice.get("text"), str):
                    index = choice.get("index")
                    index = index if isinstance(index, int) else 0
                    text = self._halves.pop(index, "") + choice["text"]
                    if text and "\ud800" <= text[-1] <= "\udbff" and not choice.get("finish_reason"):
                        self._halves[index] = text[-1]
                        text = text[:-1]
                    choice["text"] = text
        return _whole_characters(answer)


def _first_bytes(pieces: Iterator[bytes]) -> bytes:
    """Return the answer's start, long enough to tell an event stream from JSON."""
    start = b""
    for piece in pieces:
        start += piece
        bare = start.removeprefix(BOM).lstrip()
        if len(bare) >= 6 or (bare and bare[:1] in b":{[<"):
            break
    return start.removeprefix(BOM).lstrip()


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_whole_characters(entry) for entry in value]
    return value


def error_message(answer: Mapping[str, Any]) -> str | None:
    """Return what an answer says of an error, in any of the shapes that servers use, or None."""
    error = answer.get("error")
    if isinstance(error, Mapping):
        said = error.get("message") or error.get("code") or error.get("type")
        param = error.get("param")
        return f"{said or 'no message'}" + (f" ({param})" if param and str(param) not in str(said) else "")
    if error:
        return str(error)
    if answer.get("object") == "error":
        return str(answer.get("message") or "no message")
    if "choices" not in answer and "detail" in answer:
        return _detail(answer["detail"])
    if "choices" not in answer and isinstance(answer.get("message"), str):
        return str(answer["message"])
    return None


def _detail(detail: object) -> str:
    if isinstance(detail, list):
        return "; ".join(_detail(entry) for entry in detail)
    if isinstance(detail, Mapping):
        place = ".".join(str(part) for part in detail.get("loc", ()) if part != "body")
        return f"{place + ': ' if place else ''}{detail.get('msg') or dict(detail)}"
    return str(detail)


def describe_error(body: bytes, content_type: str) -> str:
    """Return the message in an error's body, on one line of at most 500 characters."""
    text = body.decode("utf-8", "replace").strip()
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, Mapping):
        text = error_message(answer) or text
    elif "html" in content_type or text[:1] == "<":
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = "an HTML page" + (f", {' '.join(title[1].split())!r}" if title else "")
    return shorten(" ".join(text.split()), 500)
