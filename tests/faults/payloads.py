"""What servers put into an answer: fields missing, null or twice, other shapes, errors inside a success."""

import json

from conftest import DONE, END, answer, event, piece, stream, stream_head

from completions_magic.errors import AnswerError, DecodeError, StreamError

from .event_streams import HEL, HELLO, LO, STOP, body, joined, pieces, raw
from .fault import KEY, Fault, bad, good

LOGPROBS = {"tokens": ["Hello"], "token_logprobs": [-0.5], "top_logprobs": [{"Hello": -0.5}], "text_offset": [0]}
CHAT_LOGPROBS = {"content": [{"token": "Hello", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
PAGE = b"<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body><h1>Hi</h1></body></html>"


def data(payload: object) -> bytes:
    """Return an event that holds JSON, or text that is none."""
    return b"data: " + (payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()) + b"\n\n"


def choice(text: str = "Hello", **more) -> dict:
    """Return a chunk with one choice of exactly these fields."""
    return {"choices": [{"text": text, **more}]}


def whole(payload: object, kind: str = "application/json") -> bytes:
    """Return an unstreamed answer."""
    return answer(payload if isinstance(payload, bytes) else json.dumps(payload).encode(), kind=kind)


def both(name: str, payload: object, text: str | tuple[str, ...] = "Hello", **asks) -> list[Fault]:
    """Return an odd payload as a stream's event and as a whole answer: the text comes all the same."""
    return [
        good(f"{name}, streamed", pieces(data(payload), DONE), text=text, **asks),
        good(f"{name}, whole", whole(payload.encode() if isinstance(payload, str) else payload), text=text, **asks),
    ]


def refused(name: str, payload: object, error: type, *words: str) -> list[Fault]:
    """Return a payload that is an error as a whole answer, as the first event and as a later one."""
    return [
        bad(f"{name}, whole", whole(payload), error, *words),
        bad(f"{name}, first event", pieces(data(payload), DONE), error, *words),
        bad(f"{name}, later event", pieces(HEL, data(payload), DONE), error, *words, partial="Hel"),
    ]


FINISH = [
    *both("finish_reason null and [DONE]", choice(index=0, finish_reason=None)),
    *both('finish_reason "" and [DONE]', choice(index=0, finish_reason="")),
    *both("finish_reason missing and [DONE]", choice(index=0)),
    *both("a finish_reason of its own", choice(index=0, finish_reason="eos_token")),
    *both("a finish_reason that is a number", choice(index=0, finish_reason=2)),
    good("finish_reason twice", pieces(HEL, LO, STOP, STOP, DONE)),
    good("two finish_reasons", pieces(HEL, LO, event(reason="length"), event(reason="stop"), DONE)),
    good("finish_reason beside the last text", pieces(HEL, event("lo", reason="stop"), DONE)),
    good('finish_reason "" in every event', pieces(event("Hel", reason=""), event("lo", reason=""), STOP, DONE)),
    bad(
        'finish_reason "" at the end and no [DONE]',
        pieces(HEL, event("lo", reason="")),
        StreamError,
        "cut",
        partial="Hello",
    ),
    bad(
        "one of two choices without an end",
        pieces(HEL, STOP, event("a", index=1)),
        StreamError,
        "cut",
        partial=("Hel", "a"),
        asks={"n": 2},
    ),
]

FIELDS = [
    good("text null", pieces(data({"choices": [{"text": None, "index": 0}]}), HELLO)),
    good("text missing", pieces(data({"choices": [{"index": 0}]}), HELLO)),
    good(
        "text null beside the finish_reason",
        pieces(HEL, LO, data({"choices": [{"text": None, "finish_reason": "stop"}]})),
    ),
    good("an empty answer", pieces(event(""), STOP, DONE), text=""),
    *both("index missing", choice(finish_reason="stop")),
    *both("index null", choice(index=None, finish_reason="stop")),
    *both("index a text", choice(index="0", finish_reason="stop")),
    *both("index negative", choice(index=-1, finish_reason="stop")),
    *both("index out of range", choice(index=7, finish_reason="stop")),
    good(
        "index counts the chunks",
        pieces(event("Hel", index=0), event("lo", index=1), event(index=2, reason="stop"), DONE),
    ),
    good(
        "choices out of order",
        pieces(event("b", index=1), event("a"), event("B", index=1, reason="stop"), event("A", reason="stop"), DONE),
        text=("aA", "bB"),
        n=2,
    ),
    good(
        "choices out of order, whole",
        whole({"choices": [{"text": "b", "index": 1}, {"text": "a", "index": 0}]}),
        text=("a", "b"),
        n=2,
    ),
    good(
        "the same index for all choices",
        whole({"choices": [{"text": "a", "index": 0}, {"text": "b", "index": 0}]}),
        text=("a", "b"),
        n=2,
    ),
    good("no index for any choice", whole({"choices": [{"text": "a"}, {"text": "b"}]}), text=("a", "b"), n=2),
    good(
        "indices with a gap",
        pieces(event("a", reason="stop"), event("b", index=5, reason="stop"), DONE),
        text=("a", "b"),
        n=2,
    ),
    *both("logprobs of completions", choice(finish_reason="stop", logprobs=LOGPROBS), logprobs=1),
    *both("logprobs of chat completions", choice(finish_reason="stop", logprobs=CHAT_LOGPROBS), logprobs=1),
    *both("logprobs of another kind", choice(finish_reason="stop", logprobs=[-0.5]), logprobs=1),
    *both("logprobs with holes", choice(finish_reason="stop", logprobs={**LOGPROBS, "top_logprobs": None}), logprobs=1),
    *both(
        "logprobs of minus infinity",
        '{"choices":[{"text":"Hello","finish_reason":"stop","logprobs":{"token_logprobs":[-Infinity]}}]}',
        logprobs=1,
    ),
    *both("created as a fraction", {**choice(finish_reason="stop"), "created": 1731.25}),
    *both("created as text", {**choice(finish_reason="stop"), "created": "yesterday"}),
    *both("created beyond all bounds", {**choice(finish_reason="stop"), "created": 10**400}),
    *both("NaN", '{"created":NaN,"score":-Infinity,"choices":[{"text":"Hello","finish_reason":"stop"}]}'),
    *both("a field twice", '{"id":"a","id":"b","choices":[{"text":"no","text":"Hello","finish_reason":"stop"}]}'),
    *both("fields that nobody knows", {**choice(finish_reason="stop", stop_reason=7), "kv_transfer": {"a": [1]}}),
    *both("error null beside the choices", {**choice(finish_reason="stop"), "error": None}),
    *both("usage that is none", {**choice(finish_reason="stop"), "usage": "much"}),
    *both("usage with halves", {**choice(finish_reason="stop"), "usage": {"prompt_tokens": 1.5, "total_tokens": None}}),
    *both(
        "everything null but the text",
        {"id": None, "object": None, "model": None, **choice(index=None, finish_reason=None)},
    ),
    *both("the object of a chat", {**choice(finish_reason="stop"), "object": "chat.completion"}),
    *both("a text of half a pair", '{"choices":[{"text":"a\\ud83cb","finish_reason":"stop"}]}', text="a\ufffdb"),
    *both("escapes for all signs", '{"choices":[{"text":"\\u0048ell\\u006f","finish_reason":"stop"}]}'),
    good("a BOM before JSON", whole(b"\xef\xbb\xbf" + json.dumps(choice(finish_reason="stop")).encode())),
    good("blanks around JSON", whole(b"\r\n\t " + json.dumps(choice(finish_reason="stop")).encode() + b"\n\n")),
    good("JSON as text/html", whole(choice(finish_reason="stop"), "text/html")),
    good("JSON as an event stream", whole(choice(finish_reason="stop"), "text/event-stream")),
    good(
        "JSON in chunks of one byte",
        joined(
            stream_head("application/json"),
            *(piece(bytes([byte])) for byte in json.dumps(choice(finish_reason="stop")).encode()),
            END,
        ),
    ),
    good("terminal sequences in the text", pieces(event("\x1b[2J\x07"), STOP, DONE), text="\x1b[2J\x07"),
    good("HTML in the text", pieces(raw("<script>alert(1)</script>"), STOP, DONE), text="<script>alert(1)</script>"),
    good("the key in the text", pieces(event(f"<{KEY}>"), STOP, DONE), text="<[key]>", recorded=False),
    good(
        "the key in the text, escaped",
        pieces(f'data: {{"choices":[{{"text":"<\\u0073{KEY[1:]}>"}}]}}\n\n'.encode(), STOP, DONE),
        text="<[key]>",
        recorded=False,
    ),
    good("the key in a field that nobody knows", pieces(event("Hello", seen=KEY), STOP, DONE), recorded=False),
]

NONE = [
    *refused(
        "an error object",
        {"error": {"message": "out of memory", "type": "server_error", "code": 500}},
        AnswerError,
        "out of memory",
    ),
    *refused("an error of one word", {"error": "out of memory"}, AnswerError, "out of memory"),
    *refused(
        "an error as vLLM writes it",
        {"object": "error", "message": "out of memory", "code": 400},
        AnswerError,
        "out of memory",
    ),
    *refused("an error as FastAPI writes it", {"detail": "out of memory"}, AnswerError, "out of memory"),
    *refused("an error with the key", {"error": {"message": f"bad key {KEY}"}}, AnswerError, "bad key [key]"),
    *refused("an error without words", {"error": {"code": 1234}}, AnswerError, "1234"),
    *refused("an error that drives a terminal", {"error": "\x1b[2Jred\nline"}, AnswerError, "red"),
    *refused(
        "a chat completion",
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]},
        DecodeError,
        "chat",
    ),
    *refused(
        "a chat completion's chunk",
        {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]},
        DecodeError,
        "chat",
    ),
    *refused("a list", [1, 2], DecodeError, "no completion"),
    *refused("a number", 3, DecodeError, "no completion"),
    *refused("null", None, DecodeError, "no completion"),
    *refused("a text", '"Hello"', DecodeError, "no completion"),
    *refused("an object of something else", {"status": "ok"}, DecodeError, "without choices"),
    *refused("choices that are an object", {"choices": {"text": "a"}}, DecodeError, "choices"),
    *refused("choices that are null", {"choices": [None]}, DecodeError, "choices"),
    *refused("choices that are texts", {"choices": ["a"]}, DecodeError, "choices"),
    bad("no choices, whole", whole({"choices": []}), DecodeError, "without any choice"),
    bad("choices null, whole", whole({"choices": None}), DecodeError, "without any choice"),
    bad("HTML", whole(PAGE, "text/html"), DecodeError, "HTML", "/v1"),
    bad("HTML under the name of JSON", whole(PAGE), DecodeError, "HTML"),
    bad("HTML under the name of an event stream", whole(PAGE, "text/event-stream"), DecodeError, "HTML"),
    bad("HTML after a text", pieces(HEL, data(PAGE.decode())), DecodeError, "nginx", partial="Hel"),
    bad("no body", body(b""), StreamError, "empty", heard=3),
    bad("no content at all", b"HTTP/1.1 204 No Content\r\n\r\n", StreamError, "empty", heard=3),
    bad("a body of blanks", body(b"\n\n  \n"), StreamError, "empty", heard=3),
    bad("a chunked body of nothing", joined(stream_head(), END), StreamError, "empty", heard=3),
    bad("JSON that is cut", whole(b'{"choices":[{"text":"Hel'), DecodeError, "not JSON"),
    bad("JSON and something more", whole(json.dumps(choice()).encode() + b" trailing"), DecodeError, "not JSON"),
    bad("two objects", whole(json.dumps(choice()).encode() * 2), DecodeError, "not JSON"),
    bad("JSON with single quotes", whole(b"{'choices': []}"), DecodeError, "not JSON"),
    bad("JSON in UTF-16", whole(json.dumps(choice()).encode("utf-16")), DecodeError, "not JSON"),
    bad("plain words", whole(b"upstream connect error", "text/plain"), DecodeError, "upstream connect error"),
    bad("bytes", whole(bytes(range(256)), "application/octet-stream"), DecodeError, "not JSON"),
    bad("JSON nested too deep", whole(b'{"choices":' + b"[" * 100_000), DecodeError),
    bad(
        "events with JSON nested too deep",
        stream([HEL, b'data: {"choices":' + b"[" * 100_000 + b"\n\n"]),
        DecodeError,
        partial="Hel",
    ),
    bad(
        "an event that is cut and closed",
        pieces(HEL, b'data: {"choices":[{"te\n\n', DONE),
        DecodeError,
        "not JSON",
        partial="Hel",
    ),
]

PAYLOADS = [*FINISH, *FIELDS, *NONE]
