"""From the bytes of an answer, streamed or whole, to completions; whatever a server sends, never a wrong text."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from .errors import AnswerError, CompletionsError, DecodeError, StreamError, TooLargeError, shorten
from .events import BOM, EVENT_LIMIT, EventDecoder
from .inert import one_line
from .key import PIECE, ApiKey
from .schema import Choice, Completion, Growing
from .spelling import Spelling

ANSWER_LIMIT = 64 * 2**20
DONE = b"[DONE]"
BATCH = 64
"""Events decoded at once: of many more, Python's garbage collector looks at each again and again."""
FIELD = re.compile(rb"(?:data|event|id|retry)?:|(?:data|event|id|retry)[\r\n]")


class AnswerReader:
    """Reads one answer: an event stream or a single JSON object, told apart by their first bytes.

    Content types are not believed: real servers send either under any name. `choices` is how many were asked
    for: where it is one, a server that counts chunks in `index` still gives one text. `event_limit` is the most
    bytes of one event.
    """

    def __init__(
        self,
        key: ApiKey | None = None,
        *,
        name: str = "the endpoint",
        choices: int | None = None,
        event_limit: int = EVENT_LIMIT,
    ) -> None:
        self._key = key
        self._traces = () if key is None else key.traces()
        self._name = name
        self._choices = choices
        self._event_limit = event_limit
        self._done = False
        self._streamed = False
        self._masked = False
        self._halves: dict[int, str] = {}
        self._before: dict[int, str] = {}
        self._held: dict[int, str] = {}
        self._spelling = Spelling(key) if key is not None and self._traces else None

    @property
    def streamed(self) -> bool:
        """True once the answer has turned out to be an event stream."""
        return self._streamed

    @property
    def done(self) -> bool:
        """True once the answer is whole: a stream has said `[DONE]`, or a JSON object has come."""
        return self._done

    @property
    def masked(self) -> bool:
        """True once something of the key may have been in the answer, so that its text is not what was sent."""
        return self._masked

    def chunks(self, pieces: Iterable[bytes]) -> Iterator[Completion]:
        """Yield the completions in `pieces` of bytes; raise DecodeError, TooLargeError or AnswerError."""
        return chain.from_iterable(self.batches(pieces))

    def batches(self, pieces: Iterable[bytes]) -> Iterator[Sequence[Completion]]:
        """Yield the same completions, those together that came together; each batch is read before it is yielded."""
        pieces = iter(pieces)
        start = _first_bytes(pieces)
        if not start.strip():
            raise StreamError(f"{self._name} sent an empty answer")
        self._streamed = FIELD.match(start) is not None
        try:
            yield from self._stream(start, pieces) if self._streamed else self._whole(start, pieces)
        except CompletionsError:
            yield from self._rest()
            raise
        yield from self._rest()

    def _rest(self) -> Iterator[Sequence[Completion]]:
        """Yield what waited for more that did not come: the begun piece of a key, the half of a character."""
        held, halves = self._held, self._halves
        waiting = {} if self._spelling is None else self._spelling.waiting
        texts = {index: held.get(index, "") + "\ufffd" * (index in halves) for index in {**held, **halves, **waiting}}
        choices = [Choice(text, index) for index, text in texts.items()]
        if self._spelling is not None:
            self._spelling.mask(choices, more=False)
        if choices:
            yield [Completion(choices=choices)]

    def check_end(self, growing: Growing) -> None:
        """Raise when what has come is not a whole answer: cut, or without any choice."""
        if not growing.has_choices:
            raise DecodeError(f"{self._name} answered without any choice")
        if not self._done and not growing.finished():
            raise StreamError(f"{self._name} cut the answer off before its end; what had come is kept")

    def _stream(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[Sequence[Completion]]:
        decoder = EventDecoder(self._event_limit)
        piece: bytes | None = start
        while piece is not None:
            yield from self._read_some(decoder.feed(piece))
            if self._done:
                return
            piece = next(pieces, None)
        yield from self._read_each(decoder.flush())

    def _read_some(self, payloads: list[bytes] | Iterator[bytes]) -> Iterator[Sequence[Completion]]:
        """Read events many at once where they are of the usual kind, else one by one."""
        if not isinstance(payloads, list):
            yield from self._read_each(payloads)
            return
        end = payloads[-1:] if payloads[-1:] == [DONE] else []
        for start in range(0, len(payloads) - len(end), BATCH):
            batch = payloads[start : min(start + BATCH, len(payloads) - len(end))]
            usual = None if self._waits() else Completion.from_chunks(batch)
            if usual is not None and self._is_plain(batch, usual):
                yield usual
            else:
                yield from self._read_each(batch)
            if self._done:
                return
        yield from self._read_each(end)

    def _waits(self) -> bool:
        """Say whether the end of what came waits for what comes next."""
        return bool(self._halves or self._held or (self._spelling is not None and self._spelling.waiting))

    def _read_each(self, payloads: Iterable[bytes]) -> Iterator[Sequence[Completion]]:
        for payload in payloads:
            completion = self._read(payload)
            if completion is not None:
                yield [completion]
            elif self._done:
                return

    def _is_plain(self, payloads: Iterable[bytes], completions: Iterable[Completion]) -> bool:
        """Say whether nothing is to be mended or masked."""
        if self._choices == 1 and {completion.choices[0].index for completion in completions} != {0}:
            return False
        if self._spelling is None:
            return True
        texts = {index: [before] for index, before in self._before.items()}
        names: set[str | None] = set()
        has_scores = False
        for completion in completions:
            names |= {completion.id, completion.model, completion.system_fingerprint}
            for choice in completion.choices:
                names.add(choice.finish_reason)
                has_scores = has_scores or choice.logprobs is not None
                texts.setdefault(choice.index, []).append(choice.text)
        joined = {index: "".join(pieces) for index, pieces in texts.items()}
        spelled = self._spelling.said_with([choice for completion in completions for choice in completion.choices])
        said = [*joined.values(), *spelled.values()]
        # All there is of text in completions of this kind: a tenth of what came, most of which is the same every time.
        if self._key is not None and self._key.leaves_a_trace("\n".join([*said, *filter(None, names)])):
            return False
        if has_scores and self._is_suspicious(b"\n".join(payloads)):
            return False
        if self._streamed and any(map(self._ends_in_key, said)):
            return False
        self._before = {index: text[-PIECE:] for index, text in joined.items()}
        self._spelling.go_on(spelled)
        return True

    def _is_suspicious(self, shown: bytes) -> bool:
        """Say whether a piece of the key may be in it. Escapes may spell anything, a key too."""
        return bool(self._traces) and (b"\\u" in shown or any(map(shown.__contains__, self._traces)))

    def _ends_in_key(self, text: str) -> bool:
        """Say whether the end of a text may be the beginning of a piece of the key."""
        return self._key is not None and self._key.mask_on("", text[1 - PIECE :], more=True)[1] != ""

    def _whole(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[Sequence[Completion]]:
        body = bytearray(start)
        for piece in pieces:
            body += piece
            if len(body) > ANSWER_LIMIT:
                raise TooLargeError(f"{self._name} sent an answer of more than {ANSWER_LIMIT:,} bytes")
        if body.lstrip()[:1] == b"<":
            raise DecodeError(f"{self._name} sent an HTML page instead of JSON: does the base URL end in /v1?")
        self._done = True
        payload = bytes(body)
        usual = Completion.from_chunks([payload])
        if usual is not None and _are_numbered(usual[0].choices) and self._is_plain([payload], usual):
            yield usual
        else:
            yield [self._complete(payload)]

    def _read(self, payload: bytes) -> Completion | None:
        """Read one event; None where it is blank, or the end of the stream."""
        payload = payload.strip()
        self._done = self._done or payload == DONE
        return self._complete(payload) if payload and not self._done else None

    def _complete(self, payload: bytes) -> Completion:
        completion = self._decode_completion(payload)
        self._number(completion.choices)
        if self._spelling is not None:
            for choice in completion.choices:
                self._mask(choice)
                self._masked = self._masked or choice.logprobs is not None
            self._spelling.mask(completion.choices, more=self._streamed)
        return completion

    def _mask(self, choice: Choice) -> None:
        """Mask pieces of the key; the beginning of one, at the end of a chunk, waits for the next."""
        if self._key is None:
            return
        before = self._before.get(choice.index, "")
        text = self._held.pop(choice.index, "") + choice.text
        choice.text, held = self._key.mask_on(before, text, more=self._streamed and not choice.finish_reason)
        self._masked = self._masked or choice.text + held != text
        if held:
            self._held[choice.index] = held
        self._before[choice.index] = (before + text[: len(text) - len(held)])[-PIECE:]

    def _decode_completion(self, payload: bytes) -> Completion:
        """Read a chunk of any shape; raise what it says of an error, or that it is none."""
        answer = said = self._decode(payload)
        suspicious = self._is_suspicious(payload)
        if self._key is not None and suspicious:
            self._masked = True
            answer = self._key.scrub_all(answer)
        if not isinstance(answer, Mapping):
            raise DecodeError(f"{self._name} sent JSON that is no completion: {shorten(repr(answer), 120)}")
        failure = error_message(answer)
        if failure is not None:
            raise AnswerError(f"{self._name} sent an error inside its answer: {shorten(failure, 500)}")
        if "choices" not in answer and "usage" not in answer:
            raise DecodeError(f"{self._name} sent JSON without choices: {shorten(repr(dict(answer)), 120)}")
        if _is_chat(answer.get("choices")):
            raise DecodeError(f"{self._name} answers as for chat completions, not with a text: is its address right?")
        completion = Completion.from_dict(answer)
        raw = Completion.from_dict(said).choices if suspicious else []
        for choice, as_sent in zip(completion.choices, raw, strict=False):
            choice.text = as_sent.text  # masked when its number, and so what came before it, is known
            if choice.logprobs is not None and as_sent.logprobs is not None:
                choice.logprobs.tokens = as_sent.logprobs.tokens
        return completion

    def _number(self, choices: list[Choice]) -> None:
        """Mend the indices of servers that count chunks in them, or give one to several choices."""
        if self._choices == 1 and len(choices) == 1:
            choices[0].index = 0
        elif not self._streamed and not _are_numbered(choices):
            for position, choice in enumerate(choices):
                choice.index = position

    def _decode(self, payload: bytes) -> Any:
        try:
            answer = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = self._decode_odd(payload)
        except RecursionError:
            raise DecodeError(f"{self._name} sent something that is not JSON for us: it is nested too deep") from None
        else:
            return self._join_halves(answer) if self._halves else answer
        return _whole_characters(self._join_halves(answer))

    def _decode_odd(self, payload: bytes) -> Any:
        """Read the rare payload: NaN, halves of surrogate pairs, bytes that are not UTF-8."""
        try:
            return json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            text = payload[:120].decode("utf-8", "replace")
            raise DecodeError(f"{self._name} sent something that is not JSON: {text!r}") from None

    def _join_halves(self, answer: Any) -> Any:
        """Join halves of surrogate pairs from one chunk to the next: a first half waits for its second."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict) or not isinstance(choice.get("text") or "", str):
                continue
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            text = self._halves.pop(index, "") + (choice.get("text") or "")
            if text and "\ud800" <= text[-1] <= "\udbff" and not choice.get("finish_reason"):
                self._halves[index] = text[-1]
                text = text[:-1]
            choice["text"] = _whole_characters(text)
        return answer


def _first_bytes(pieces: Iterator[bytes]) -> bytes:
    """Return the answer's start, long enough to tell an event stream from JSON."""
    start = b""
    for piece in pieces:
        start = (start + piece).removeprefix(BOM).lstrip()
        if len(start) >= 6 or (start and start[:1] in b":{[<"):
            break
    return start


def _are_numbered(choices: Sequence[Choice]) -> bool:
    """Say whether each choice has a number of its own."""
    return len({choice.index for choice in choices}) == len(choices)


def _is_chat(choices: object) -> bool:
    """Say whether choices hold messages where a text should be: taken as completions they would be empty."""
    return isinstance(choices, list) and any(
        isinstance(choice, Mapping) and "text" not in choice and ("message" in choice or "delta" in choice)
        for choice in choices
    )


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
        loc = detail.get("loc") or ()
        parts = loc if isinstance(loc, (list, tuple)) else [loc]
        place = ".".join(str(part) for part in parts if part != "body")
        return f"{place + ': ' if place else ''}{detail.get('msg') or dict(detail)}"
    return str(detail)


def _in_its_charset(body: bytes, content_type: str) -> str:
    """Return an error's body as text: as its byte order mark, its zeros or its charset say, else as UTF-8."""
    wide = json.detect_encoding(body) if len(body) > 2 else "utf-8"
    if wide.startswith(("utf-16", "utf-32")):
        return body.decode(wide, "replace")
    named = re.search(r"charset=[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    with contextlib.suppress(LookupError, ValueError):
        return body.decode(named[1] if named else "utf-8-sig", "replace")
    return body.decode("utf-8", "replace")


def describe_error(body: bytes, content_type: str) -> str:
    """Return the message in an error's body, on one line of at most 500 characters."""
    text = _in_its_charset(body, content_type).strip()
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, Mapping):
        with contextlib.suppress(RecursionError):
            text = error_message(answer) or text
    elif "html" in content_type or text[:1] == "<":
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = "an HTML page" + (f", {' '.join(title[1].split())!r}" if title else "")
    return one_line(text, 500)
