"""The client over a real socket: requests, answers, retries, silence, stops and interrupts."""

import contextlib
import gc
import json
import re
import signal
import socket
import sys
import threading
import time
from contextvars import Context
from email.utils import formatdate
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpcore
import httpx
import pandas as pd
import pytest
from conftest import (
    DONE,
    END,
    ScriptedServer,
    again,
    answer,
    at_call,
    byte_by_byte,
    event,
    eventually,
    piece,
    reset,
    says,
    stream,
    stream_head,
)
from IPython.core.ultratb import VerboseTB

from completions_magic import Client, no_waits, transport
from completions_magic import client as client_module
from completions_magic.errors import (
    AnswerError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    CompletionsError,
    ConfigurationError,
    DecodeError,
    Interrupted,
    NotFoundError,
    PromptError,
    ServerError,
    StreamError,
    TooLargeError,
)
from completions_magic.events import EVENT_LIMIT
from completions_magic.transport import Watch

SOON = 10.0
"""Seconds: the promise is one, the rest is for a busy machine; without what is tested it takes thirty or more."""

HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])
BROKEN = answer({"error": {"message": "overloaded"}}, status="503 Service Unavailable")
KEY = "sk-Zq7Xw9Rt2Lm4Kp8Vn3Bd6Hs1Wf5"


def whole(text="Hello", *, reason="stop", **more):
    """Return an unstreamed completion."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
    return answer(
        {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], **more}
    )


@contextlib.contextmanager
def within(seconds):
    """Fail when the block takes longer."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def held():
    """Return how many threads and descriptors this process has."""
    return threading.active_count(), sum(1 for _ in Path("/dev/fd").iterdir())


def nothing_is_left(before):
    """Say whether no more is held than `before`; what an earlier test had left then may have gone meanwhile."""
    return eventually(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("prompt", "parameters", "body"),
    [
        ("Say hello", {}, b'{"model":"m","prompt":"Say hello"}'),
        ("Grüße, 🌍", {"stop": ["\n", "§"]}, '{"model":"m","prompt":"Grüße, 🌍","stop":["\\n","§"]}'.encode()),
        ("a", {"temperature": 0, "max_tokens": 5}, b'{"model":"m","prompt":"a","max_tokens":5,"temperature":0}'),
        ("a", {"temperature": None, "top_p": 0.5}, b'{"model":"m","prompt":"a","top_p":0.5}'),
        (["a", "b"], {"n": 2}, b'{"model":"m","prompt":["a","b"],"n":2}'),
        ([1, 2, 3], {"echo": True}, b'{"model":"m","prompt":[1,2,3],"echo":true}'),
        ("a", {"min_p": 0.1, "model": "other"}, b'{"model":"other","prompt":"a","min_p":0.1}'),
    ],
)
def test_the_body_holds_what_was_set_and_nothing_else(server, prompt, parameters, body):
    """Model, prompt and the parameters that were set are sent, byte for byte, and no null."""
    server.scripts = [whole()]
    with server.client() as client:
        client.complete(prompt, **parameters)
    assert server.heard[0].body == body


def test_a_stream_is_asked_for_only_by_stream(server):
    """`stream` sends stream: true, `complete` does not mention it."""
    server.scripts = [HELLO]
    with server.client() as client:
        list(client.stream("a"))
        client.complete("a")
    assert [heard.json.get("stream") for heard in server.heard] == [True, None]


def test_the_request_is_a_post_of_json_to_completions(server):
    """The route is appended to the base URL, and without a key no Authorization is sent."""
    server.scripts = [whole()]
    with server.client() as client:
        client.complete("a")
    heard = server.heard[0]
    assert (heard.method, heard.path, heard.headers["content-type"]) == ("POST", "/v1/completions", "application/json")
    assert "authorization" not in heard.headers


def test_nothing_is_sent_before_the_first_chunk_is_asked_for(server):
    """A stream that nobody reads sends no request."""
    server.scripts = [HELLO]
    with server.client() as client:
        unread = client.stream("a")
        unread.close()
        client.complete("b")
    assert [heard.json["prompt"] for heard in server.heard] == ["b"]


@pytest.mark.parametrize("prompt", [[], None, 3, {"a": 1}, b"bytes", ["a", 1], "half \ud83d"])
def test_a_prompt_that_is_none_is_refused_before_anything_is_sent(server, prompt):
    """What the API does not take as a prompt raises PromptError, and the server hears nothing."""
    with server.client() as client, pytest.raises(PromptError):
        client.complete(prompt)
    assert server.heard == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"temperature": 3}, "temperature"), ({"n": 0}, "n "), ({"max_tokens": "many"}, "max_tokens")],
)
def test_a_parameter_out_of_range_is_refused_before_anything_is_sent(server, parameters, named):
    """The error names the parameter, and the server hears nothing."""
    with server.client() as client, pytest.raises(ConfigurationError, match=named):
        client.complete("a", **parameters)
    assert server.heard == []


def test_what_json_cannot_write_is_refused_before_anything_is_sent(server):
    """A value of another field that is no JSON raises ConfigurationError."""
    with server.client() as client, pytest.raises(ConfigurationError):
        client.complete("a", anything={1, 2}, more=object())
    assert server.heard == []


def test_two_requests_share_one_connection(server):
    """The client keeps its one connection open from a whole answer to the next request."""
    server.scripts = [whole()]
    with server.client() as client:
        client.complete("a")
        client.complete("b")
    assert (len(server.heard), len(server._open)) == (2, 1)


def test_two_streams_share_one_connection(server):
    """The client keeps its one connection open from a stream that ended to the next request."""
    server.scripts = [HELLO]
    with server.client() as client:
        list(client.stream("a"))
        list(client.stream("b"))
    assert (len(server.heard), len(server._open)) == (2, 1)


def test_a_client_that_was_closed_connects_again(server):
    """Closing is no end: the next request opens a new connection."""
    server.scripts = [HELLO]
    client = server.client()
    client.complete("a")
    client.close()
    assert client.complete("b").text == "Hello"
    client.close()


def test_a_connection_that_the_server_has_closed_meanwhile_is_no_failure(server):
    """A kept connection that the server closed without saying so costs no retry."""
    closed = threading.Event()

    def hang_up_silently(connection):
        connection.sendall(whole("one"))
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    server.scripts = [hang_up_silently, whole("two")]
    with server.client(retries=0) as client:
        assert client.complete("a").text == "one"
        assert closed.wait(5)
        assert client.complete("b").text == "two"


# ---------------------------------------------------------------- answers


def test_a_stream_arrives_chunk_by_chunk_and_its_sum_is_the_answer(server):
    """The sum of the chunks is the completion."""
    server.scripts = [stream([event("Hel"), event("lo"), event(reason="stop"), DONE])]
    with server.client() as client:
        chunks = list(client.stream("Say hello", max_tokens=5))
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert sum(chunks[1:], chunks[0]).text == "Hello"
    assert server.heard[0].json == {"model": "m", "prompt": "Say hello", "max_tokens": 5, "stream": True}


def test_a_chunk_is_handed_on_before_the_answer_has_ended(server):
    """The server sends the rest only after the client has shown the first chunk."""
    shown = threading.Event()
    server.scripts = [says(stream_head(), piece(event("Hel")), shown, piece(event("lo", reason="stop")), END)]
    with server.client() as client:
        chunks = client.stream("a")
        assert next(chunks).text == "Hel"
        shown.set()
        assert [chunk.text for chunk in chunks] == ["lo"]


def test_the_chunks_know_what_was_asked(server):
    """Chunks, their sum and the partial completion all carry the request."""
    server.scripts = [HELLO]
    with server.client() as client:
        answering = client.stream("a", max_tokens=3)
        chunks = list(answering)
    assert all(chunk.request is answering.request for chunk in chunks)
    assert answering.partial.request.body() == {"model": "m", "prompt": "a", "max_tokens": 3, "stream": True}


def test_an_unstreamed_answer_is_the_completion(server):
    """The fields of the answer, those that the API does not name too, are the completion's."""
    server.scripts = [whole("Hello", usage={"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}, speed=9)]
    with server.client() as client:
        completion = client.complete("a")
    assert (completion.text, completion.id, completion.model, completion.finished) == ("Hello", "cmpl-1", "m", True)
    assert (completion.usage.total_tokens, completion.extra) == (3, {"speed": 9})


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
def test_a_whole_answer_to_a_streamed_request_is_one_chunk(server, kind):
    """Servers that cannot stream answer whole; the content type is not believed."""
    server.scripts = [answer(whole("Hello").partition(b"\r\n\r\n")[2], kind=kind)]
    with server.client() as client:
        assert [chunk.text for chunk in client.stream("a")] == ["Hello"]


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain; charset=latin-1"])
def test_a_stream_in_answer_to_an_unstreamed_request_is_summed(server, kind):
    """Servers that always stream are understood; the content type is not believed."""
    events = [event("Grü"), event("ße"), event(reason="stop"), DONE]
    server.scripts = [stream_head(kind) + b"".join(map(piece, events)) + END]
    with server.client() as client:
        assert client.complete("a").text == "Grüße"


def test_every_cut_of_the_bytes_gives_the_same_text(server):
    """HTTP chunks of a single byte, through characters and line ends, change nothing."""
    text = event("#").replace(b"#", "Grüße 🌍".encode()).replace(b"\n", b"\r\n")
    body = b"\xef\xbb\xbf: hello\r\n\r\n" + text + event(reason="stop") + DONE
    server.scripts = [stream_head() + b"".join(piece(bytes([byte])) for byte in body) + END]
    with server.client() as client:
        assert client.complete("a").text == "Grüße 🌍"


def test_choices_that_arrive_interleaved_are_told_apart_by_index(server):
    """The chunks of several choices may come in any order."""
    events = [event("a", index=1), event("b"), event("c", index=1, reason="stop"), event("d", reason="length"), DONE]
    server.scripts = [stream(events)]
    with server.client() as client:
        completion = client.complete("a", n=2)
    assert [(choice.text, choice.finish_reason) for choice in completion.choices] == [("bd", "length"), ("ac", "stop")]


@pytest.mark.parametrize(
    "end",
    [b"\n", DONE, b": bye\n\n" + DONE, b"data:[DONE]", b'data: [DONE]\n\ndata: {"after": 1}\n\n'],
    ids=["none", "done", "comment", "no blank line", "more after"],
)
def test_a_finish_reason_ends_a_stream_with_or_without_done(server, end):
    """`[DONE]` may be missing, unfinished or not the last thing."""
    server.scripts = [stream([event("Hello"), event(reason="stop"), end])]
    with server.client() as client:
        completion = client.complete("a")
    assert (completion.text, completion.finished) == ("Hello", True)


def test_the_end_of_the_connection_after_a_finish_reason_is_an_end(server):
    """A server without lengths and chunks ends its answer by hanging up."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    server.scripts = [says(head + event("Hello", reason="stop"))]
    with server.client() as client:
        assert client.complete("a").text == "Hello"


@pytest.mark.parametrize("done", [DONE, b"data:[DONE]"], ids=["whole", "no blank line"])
def test_done_without_a_finish_reason_is_an_end_but_not_finished(server, done):
    """`[DONE]` says that nothing was cut; how the choice ended remains unsaid."""
    server.scripts = [stream([event("Hello"), done])]
    with server.client() as client:
        completion = client.complete("a")
    assert (completion.text, completion.finished) == ("Hello", False)


def test_usage_that_follows_the_last_choice_is_kept(server):
    """A chunk without choices carries the usage."""
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    last = b'data: {"id":"cmpl-1","choices":[],"usage":' + json.dumps(usage).encode() + b"}\n\n"
    server.scripts = [stream([event("Hello", reason="stop", usage=None), last, DONE])]
    with server.client() as client:
        assert client.complete("a", stream=True).usage.total_tokens == 3


# ---------------------------------------------------------------- characters


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["\\ud83c\\udf0d"], "🌍"),
        (["a\\ud83c", "\\udf0db"], "a🌍b"),
        (["a\\ud83c", "b"], "a\ufffdb"),
        (["a\\ud83c", "b\\udf0d"], "a\ufffdb\ufffd"),
        (["\\udf0da"], "\ufffda"),
        (["a\\ud83c"], "a\ufffd"),
    ],
)
def test_halves_of_surrogate_pairs_are_joined_or_replaced(server, texts, joined):
    """A pair that was split over two chunks is one character, a half alone is U+FFFD: none is lost or moved."""
    events = [b'data: {"choices":[{"index":0,"text":"' + text.encode() + b'"}]}\n\n' for text in texts]
    server.scripts = [stream([*events, event(reason="stop"), DONE])]
    with server.client() as client:
        completion = client.complete("a")
    assert completion.text == joined
    assert completion.text.encode()


def test_bytes_that_are_no_characters_are_replaced(server):
    """Bytes that are not UTF-8 become U+FFFD, and the rest of the text is as it was."""
    server.scripts = [stream([event("a#b").replace(b"#", b"\xff"), event(reason="stop"), DONE])]
    with server.client() as client:
        assert client.complete("a").text == "a\ufffdb"


# ---------------------------------------------------------------- answers that are none


def test_an_event_that_is_too_large_is_refused(server):
    """An event without an end stops at the limit, and what came before it is kept."""

    def endless(connection):
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(piece(b"x" * 2**16))

    server.scripts = [says(stream_head(), piece(event("Hel")), piece(b'data: {"choices'), endless)]
    with server.client() as client, pytest.raises(TooLargeError) as caught:
        client.complete("a")
    assert (caught.value.kind, caught.value.partial.text) == ("too_large", "Hel")
    assert f"{EVENT_LIMIT:,}" in str(caught.value)
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b"[]",
        b'"text"',
        b'{"id":"cmpl-1","object":"text_completion"}',
        b'{"choices":[]}',
        b'{"choices":null,"usage":{"total_tokens":1}}',
        b'{"choices":"none"}',
        b'{"choices":["text"]}',
        b"not JSON",
        b'{"choices":[{"text":"cu',
        b"<!doctype html><title>Welcome</title>",
        b"[" * 100_000,
        b'{"choices":' + b"[" * 100_000,
    ],
    ids=lambda body: body[:24].decode(),
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_that_is_no_completion_says_so(server, body, streamed):
    """Whatever a success holds instead of a completion, it is a DecodeError, short, and no empty success."""
    server.scripts = [stream([b"data: " + body + b"\n\n", DONE]) if streamed else answer(body)]
    with server.client() as client, pytest.raises(DecodeError) as caught:
        client.complete("a")
    assert (caught.value.kind, caught.value.partial) == ("decode", None)
    assert len(str(caught.value)) <= 2000
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "field",
    [
        '"created":NaN',
        '"created":1e999',
        '"created":"soon"',
        '"usage":[]',
        '"usage":{"total_tokens":null}',
        '"model":7',
    ],
)
def test_an_odd_field_beside_good_choices_does_no_harm(server, field):
    """Fields of a wrong type count as unknown; the text is what counts."""
    body = '{"choices":[{"text":"Hello","index":0,"finish_reason":"stop"}],' + field + "}"
    server.scripts = [answer(body.encode())]
    with server.client() as client:
        assert client.complete("a").text == "Hello"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"error": {"message": "out of memory", "code": 500}}, "out of memory"),
        ({"error": "out of memory"}, "out of memory"),
        ({"object": "error", "message": "out of memory", "code": 50001}, "out of memory"),
        ({"error": {"message": None, "type": "oom"}}, "oom"),
    ],
)
def test_an_error_inside_a_success_is_an_error(server, said, message):
    """A 200 that turns into an error keeps what had come, says what the server said, and is not asked again."""
    server.scripts = [stream([event("Hel"), b"data: " + json.dumps(said).encode() + b"\n\n", DONE])]
    with server.client() as client, pytest.raises(AnswerError, match=message) as caught:
        client.complete("a")
    assert (caught.value.kind, caught.value.partial.text) == ("api", "Hel")
    assert caught.value.partial.choices[0].finish_reason == "error"
    assert len(server.heard) == 1


def test_an_unstreamed_answer_without_an_end_is_too_large(server):
    """A body that never ends stops at a limit instead of filling the memory."""

    def endless(connection):
        block = piece(b"x" * 2**20)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(block)

    server.scripts = [says(stream_head("application/json"), piece(b'{"choices":[{"text":"'), endless)]
    with server.client() as client, pytest.raises(TooLargeError):
        client.complete("a")


# ---------------------------------------------------------------- cut answers


CUTS = {
    "in a chunked body": says(stream_head(), piece(event("Hel"))),
    "in an event": says(stream_head(), piece(event("Hel") + b'data: {"choices": [{"te')),
    "orderly, without a finish_reason": stream([event("Hel")]),
    "by the end of the connection": says(b"HTTP/1.1 200 OK\r\n\r\n" + event("Hel")),
    "within a length": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + event("Hel")),
    "in the framing": says(stream_head(), piece(event("Hel")), b"zz\r\n"),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_a_stream_that_was_cut_keeps_what_had_come(server, cut):
    """The error is a StreamError, its partial completion ends with "error", and nothing is asked again."""
    server.scripts = [cut, HELLO]
    with server.client() as client, pytest.raises(StreamError) as caught:
        client.complete("a", stream=True)
    partial = caught.value.partial
    assert (partial.text, partial.choices[0].finish_reason, partial.finished) == ("Hel", "error", False)
    assert partial.request.prompt == "a"
    assert len(server.heard) == 1


def test_a_reset_in_the_middle_keeps_what_had_come(server):
    """A reset is a cut too."""
    shown = threading.Event()
    server.scripts = [says(stream_head(), piece(event("Hel")), shown, reset)]
    with server.client() as client:
        chunks = client.stream("a")
        next(chunks)
        shown.set()
        with pytest.raises(StreamError) as caught:
            next(chunks)
    assert (caught.value.kind, caught.value.partial.text) == ("protocol", "Hel")


def test_a_choice_that_had_ended_before_the_cut_stays_ended(server):
    """Only the choices without a finish_reason are marked."""
    server.scripts = [stream([event("a", reason="stop"), event("b", index=1)])]
    with server.client() as client, pytest.raises(StreamError) as caught:
        client.complete("a", n=2)
    assert [choice.finish_reason for choice in caught.value.partial.choices] == ["stop", "error"]


def test_a_failure_before_any_text_has_no_partial_completion(server):
    """Where nothing had come, `partial` is None."""
    server.scripts = [says(stream_head())]
    with server.client(retries=0) as client, pytest.raises(StreamError) as caught:
        client.complete("a")
    assert caught.value.partial is None


def test_a_cut_answer_names_its_endpoint_and_its_request(server):
    """Endpoint and request id are known of every failure, also of one inside a success."""
    head = stream_head().replace(b"\r\n\r\n", b"\r\nX-Request-Id: req-7\r\n\r\n")
    server.scripts = [says(head, piece(event("Hel")))]
    with server.client() as client, pytest.raises(StreamError) as caught:
        client.complete("a")
    assert (caught.value.endpoint, caught.value.request_id) == (server.base_url, "req-7")


# ---------------------------------------------------------------- retries


def hang_up(connection):
    """Close without an answer."""


FIRST_FAILURES = {
    **{str(status): answer({}, status=f"{status} No") for status in (408, 409, 429, 500, 502, 503, 504, 529)},
    "no answer": hang_up,
    "a reset": reset,
    "cut before the first event": says(stream_head(), piece(b": one moment\n\n")),
    "an empty answer": answer(b""),
    "a broken status line": says(b"HTTP/1.1 what\r\n\r\n"),
    "silence": says(stream_head(), again(piece(b": one moment\n\n"), every=0.05)),
}


@pytest.mark.parametrize("failure", FIRST_FAILURES.values(), ids=FIRST_FAILURES.keys())
def test_a_failure_before_the_first_event_is_tried_again(server, failure):
    """The second request is the same, and its answer is the answer."""
    server.scripts = [failure, HELLO]
    with server.client(timeout=2.0 if failure is FIRST_FAILURES["silence"] else 30.0) as client:
        assert client.complete("a").text == "Hello"
    assert len(server.heard) == 2
    assert server.heard[0].body == server.heard[1].body


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 410, 413, 415, 418, 422])
def test_a_refusal_is_not_tried_again(server, status):
    """Asking again would not help."""
    server.scripts = [answer({}, status=f"{status} No"), HELLO]
    with server.client() as client, pytest.raises(APIStatusError):
        client.complete("a")
    assert len(server.heard) == 1


@pytest.mark.parametrize("retries", [0, 1, 2, 4])
def test_the_number_of_retries_is_the_number_of_further_requests(server, retries):
    """After the last retry the error goes on, and each wait was announced."""
    waits = []
    server.scripts = [BROKEN]
    with server.client(retries=retries, on_wait=waits.append) as client, pytest.raises(ServerError):
        client.complete("a")
    assert len(server.heard) == retries + 1
    assert [(wait.retry, wait.retries, wait.reason) for wait in waits] == [
        (number, retries, "503") for number in range(1, retries + 1)
    ]


def test_two_retries_are_the_default(server):
    """A client that was told nothing asks three times."""
    server.scripts = [BROKEN]
    with Client(base_url=server.base_url, model="m") as client, pytest.raises(ServerError):
        client.complete("a")
    assert len(server.heard) == 3


def test_a_negative_number_of_retries_is_no_empty_success(server):
    """It is refused, or the request is sent all the same."""
    server.scripts = [whole()]
    try:
        with server.client(retries=-1) as client:
            assert client.complete("a").text == "Hello"
    except ConfigurationError:
        assert server.heard == []


def test_a_refused_connection_is_tried_again(closed_port):
    """A port that nobody listens on is tried three times, then named in the error."""
    waits = []
    with (
        Client(base_url=f"http://127.0.0.1:{closed_port}/v1", model="m", on_wait=waits.append) as client,
        pytest.raises(APIConnectionError, match=str(closed_port)) as caught,
    ):
        client.complete("a")
    assert (caught.value.kind, len(waits)) == ("connect", 2)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ("Retry-After: 7", 7.0),
        ("Retry-After: 0", 0.0),
        ("Retry-After: 1.5", 1.5),
        ("Retry-After: 60", 60.0),
        ("retry-after-ms: 1500", 1.5),
        ("Retry-After: -5", 0.0),
        ("Retry-After: Mon, 01 Jan 2024 00:00:00 GMT", 0.0),
        ("retry-after-ms: soon\r\nRetry-After: 7", 7.0),
    ],
)
def test_the_server_says_how_long_to_wait(server, headers, seconds):
    """Retry-After in seconds or as a date, and retry-after-ms, are the wait that is announced."""
    waits = []
    server.scripts = [answer({}, status="429 Slow", headers=f"{headers}\r\n"), HELLO]
    with server.client(on_wait=waits.append) as client:
        client.complete("a")
    assert [wait.seconds for wait in waits] == [seconds]


def test_a_date_says_how_long_to_wait(server):
    """Retry-After as a date is a wait until then."""
    waits = []
    date = formatdate(time.time() + 30, usegmt=True)
    server.scripts = [answer({}, status="503 Later", headers=f"Retry-After: {date}\r\n"), HELLO]
    with server.client(on_wait=waits.append) as client:
        client.complete("a")
    assert 20 < waits[0].seconds <= 30


@pytest.mark.parametrize(
    "headers",
    [
        "Retry-After: 61",
        "Retry-After: inf",
        "retry-after-ms: 3600000",
        "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT",
    ],
)
def test_a_wait_that_is_too_long_is_not_begun(server, headers):
    """A server that asks for more than a minute is not asked again; the error says what it asked for."""
    server.scripts = [answer({}, status="429 Slow", headers=f"{headers}\r\n"), HELLO]
    with server.client() as client, pytest.raises(APIStatusError) as caught:
        client.complete("a")
    assert caught.value.retry_after > 60
    assert re.search(r"it asks to wait ([\d,]+ s|for ever)\)", str(caught.value))
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "headers",
    [
        "Retry-After: soon",
        "Retry-After:",
        "Retry-After: nan",
        "Retry-After: Mon, 99 Foo 2024",
        "Retry-After: Mon, 01 Jan 0001 00:00:00 -0000",
        "Retry-After: Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        "retry-after-ms: soon",
    ],
)
def test_a_wait_that_cannot_be_read_is_the_usual_one(server, headers):
    """Nonsense in Retry-After is no reason to give up or to wait for long."""
    waits = []
    server.scripts = [answer({}, status="429 Slow", headers=f"{headers}\r\n"), HELLO]
    with server.client(on_wait=waits.append) as client:
        assert client.complete("a").text == "Hello"
    assert 0 <= waits[0].seconds < 2


def test_waits_grow_and_are_jittered(server):
    """Each wait is longer than the one before, and no two clients come back in step."""
    waits = []
    server.scripts = [BROKEN]
    for _ in range(3):
        with server.client(retries=4, on_wait=waits.append) as client, pytest.raises(ServerError):
            client.complete("a")
    seconds = [wait.seconds for wait in waits]
    assert all(early < late for row in (seconds[:4], seconds[4:8], seconds[8:]) for early, late in pairwise(row))
    assert len(set(seconds)) == len(seconds)


def test_a_wait_says_why_and_for_how_long(server):
    """The line that a person reads names the reason, the seconds and the count."""
    waits = []
    server.scripts = [answer({}, status="429 Slow", headers="Retry-After: 7\r\n"), HELLO]
    with server.client(on_wait=waits.append) as client:
        client.complete("a")
    assert all(word in str(waits[0]) for word in ("429", "7 s", "1 of 2"))


def test_waits_are_waited_for(server):
    """Without the switch the pause that was announced is made."""
    server.scripts = [answer({}, status="429 Slow", headers="retry-after-ms: 300\r\n"), HELLO]
    start = time.monotonic()
    with server.client() as client:
        assert Context().run(client.complete, "a").text == "Hello"
    assert time.monotonic() - start >= 0.3


def test_no_waits_turns_waiting_off(server):
    """Within the block a retry happens at once, whatever the server asks for."""
    server.scripts = [answer({}, status="429 Slow", headers="Retry-After: 50\r\n"), HELLO]

    def ask(client):
        with no_waits():
            return client.complete("a")

    with server.client() as client, within(5):
        assert Context().run(ask, client).text == "Hello"


def test_no_waits_holds_in_threads_that_the_block_starts(server):
    """Background answers of the block do not wait either."""
    server.scripts = [answer({}, status="429 Slow", headers="Retry-After: 50\r\n"), HELLO]
    with server.client() as client, no_waits():
        answering = Reading(client.stream("a"))
        ended = answering.ended()
        answering.stream.stop()
    assert ended
    assert answering.stream.partial.text == "Hello"


# ---------------------------------------------------------------- silence


def silent_after(*parts):
    """Return a function that makes the script: the parts, then silence until the client has gone."""
    return lambda server: says(*parts, server.wait_until_gone)


SILENCES = {
    "no head": silent_after(),
    "a head": silent_after(stream_head()),
    "comments": silent_after(stream_head(), again(piece(b": keep-alive\n\n"), every=0.05)),
    "blank lines": silent_after(stream_head(), again(piece(b"\n\n"), every=0.05)),
    "an event byte by byte": silent_after(stream_head(), byte_by_byte(event("x"))),
    "an answer byte by byte": silent_after(stream_head("application/json"), byte_by_byte(b'{"choices":[' + b" " * 70)),
    "a head byte by byte": silent_after(byte_by_byte(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 60, framed=False)),
    "interim answers": silent_after(again(b"HTTP/1.1 102 Processing\r\n\r\n", every=0.05)),
}


@pytest.mark.parametrize("silence", SILENCES.values(), ids=SILENCES.keys())
def test_silence_before_the_first_event_is_a_timeout(server, silence):
    """Only an event ends the silence: neither comments, nor single bytes, nor a head do; then the socket is closed."""
    server.scripts = [silence(server)]
    with server.client(timeout=0.5, retries=0) as client, within(3.5), pytest.raises(APITimeoutError) as caught:
        client.complete("a")
    assert (caught.value.kind, caught.value.partial) == ("timeout", None)
    assert server.gone.wait(5)


@pytest.mark.parametrize(
    "rest",
    [
        says(),
        again(piece(b": keep-alive\n\n"), every=0.05),
        byte_by_byte(event("x")),
    ],
    ids=["nothing", "comments", "byte by byte"],
)
def test_silence_between_events_is_a_timeout_that_keeps_what_had_come(server, rest):
    """The partial completion ends with "error", and nothing is asked again."""
    server.scripts = [says(stream_head(), piece(event("Hel")), rest, server.wait_until_gone), HELLO]
    settings = {"timeout": 0.5, "first_token_timeout": 5.0}
    with server.client(**settings) as client, within(3.5), pytest.raises(APITimeoutError) as caught:
        client.complete("a", stream=True)
    assert (caught.value.partial.text, caught.value.partial.choices[0].finish_reason) == ("Hel", "error")
    assert server.gone.wait(5)
    assert len(server.heard) == 1


def test_a_comment_just_before_the_timeout_does_not_double_it(server):
    """`timeout` is the longest silence before an event, also where the last sign of life came late."""
    comment = again(piece(b": keep-alive\n\n"), every=2.7, seconds=5.4)
    server.scripts = [says(stream_head(), comment, server.wait_until_gone)]
    with server.client(timeout=3.0, retries=0) as client, within(5.5), pytest.raises(APITimeoutError):
        client.complete("a")


def test_events_that_come_in_time_may_take_longer_together(server):
    """The limit is on silence, not on the answer."""
    events = again(piece(event("x")), every=0.2, seconds=4.0)
    server.scripts = [says(stream_head(), events, piece(event(reason="stop")), END)]
    with server.client(timeout=3.0) as client:
        assert client.complete("a").text == "x" * 20


def test_a_reader_that_takes_its_time_is_not_a_silent_server(server):
    """Time spent on a chunk does not count as silence."""
    server.scripts = [HELLO]
    texts = []
    with server.client(timeout=0.3, first_token_timeout=5.0) as client:
        for chunk in client.stream("a"):
            time.sleep(0.4)
            texts.append(chunk.text)
    assert "".join(texts) == "Hello"


def test_a_connection_that_is_never_made_is_a_timeout(full_port):
    """`connect_timeout` bounds the time until there is a connection."""
    client = Client(
        base_url=f"http://127.0.0.1:{full_port}/v1", model="m", connect_timeout=0.3, timeout=30.0, retries=0
    )
    with client, within(SOON), pytest.raises(APITimeoutError) as caught:
        client.complete("a")
    assert caught.value.kind == "timeout"


def test_the_message_of_a_timeout_says_for_how_long(server):
    """A person can tell which limit it was."""
    server.scripts = [server.wait_until_gone]
    with server.client(timeout=0.3, retries=0) as client, pytest.raises(APITimeoutError, match=re.escape("0.3 s")):
        client.complete("a")


# ---------------------------------------------------------------- leaving early


def endless(server):
    """Return a script that sends events until the client has gone, then sets `gone`."""

    def script(connection):
        try:
            connection.sendall(stream_head())
            while True:
                connection.sendall(piece(event("x")))
                time.sleep(0.01)
        except OSError:
            server.gone.set()

    return script


def test_closing_a_stream_closes_its_socket(server):
    """The server sees the client go, although the client itself stays open."""
    server.scripts = [endless(server)]
    with server.client() as client:
        chunks = client.stream("a")
        next(chunks)
        chunks.close()
        assert server.gone.wait(SOON)
        assert list(chunks) == []


def test_leaving_a_with_block_closes_the_socket(server):
    """A stream is a context manager."""
    server.scripts = [endless(server)]
    with server.client() as client:
        with client.stream("a") as chunks:
            next(chunks)
        assert server.gone.wait(SOON)


def test_breaking_out_of_a_loop_closes_the_socket(server):
    """`for chunk in client.stream(…): break` leaves nothing open, and needs no garbage collector."""
    server.scripts = [endless(server)]
    gc.disable()
    try:
        with server.client() as client:
            for _ in client.stream("a"):
                break
            assert server.gone.wait(SOON)
    finally:
        gc.enable()


def test_a_silent_stream_is_closed_too(server):
    """Closing does not wait for the server."""
    server.scripts = [says(stream_head(), piece(event("Hel")), server.wait_until_gone)]
    with server.client() as client:
        chunks = client.stream("a")
        next(chunks)
        with within(SOON):
            chunks.close()
        assert server.gone.wait(SOON)
    assert chunks.partial.text == "Hel"


def test_an_answer_that_goes_on_after_done_is_left(server):
    """`[DONE]` is the end, even where the server says more and keeps the connection open."""
    server.scripts = [says(stream_head(), piece(event("Hello", reason="stop") + DONE), server.wait_until_gone)]
    with server.client() as client, within(SOON):
        assert client.complete("a").text == "Hello"
        assert server.gone.wait(SOON)


# ---------------------------------------------------------------- stop


class Reading:
    """A thread that reads a stream to its end, stopped right before it calls `stop_at`."""

    def __init__(self, chunks, stop_at=None):
        self.stream = chunks
        self._stop_at = stop_at
        self.first = threading.Event()
        self.error = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def ended(self, seconds=SOON):
        """Say whether the stream ends in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _read(self):
        if self._stop_at is not None:
            at_call(self._stop_at, self.stream.stop)
        try:
            for _ in self.stream:
                self.first.set()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test looks at it
            self.error = error


def test_stop_ends_a_stream_that_is_silent(server):
    """From another thread, within a moment, without an error; the socket is closed and the text kept."""
    server.scripts = [says(stream_head(), piece(event("Hel")), server.wait_until_gone)]
    with server.client() as client:
        reading = Reading(client.stream("a"))
        assert reading.first.wait(5)
        reading.stream.stop()
        assert reading.ended()
        assert server.gone.wait(SOON)
    assert (reading.error, reading.stream.stopped, reading.stream.partial.text) == (None, True, "Hel")


def test_stop_ends_a_stream_that_never_ends(server):
    """A server that goes on talking is left."""
    server.scripts = [endless(server)]
    with server.client() as client:
        reading = Reading(client.stream("a"))
        assert reading.first.wait(5)
        reading.stream.stop()
        assert reading.ended()
        assert server.gone.wait(SOON)
    assert reading.error is None


@pytest.mark.parametrize("used", [False, True], ids=["new connection", "kept connection"])
def test_stop_ends_the_wait_for_an_answer(server, used):
    """Before the head has come a stop ends the call, and nothing is tried again."""
    waiting = threading.Event()
    script = says(lambda _: waiting.set(), server.wait_until_gone)
    server.scripts = [whole(), script] if used else [script]
    with server.client() as client:
        if used:
            client.complete("a")
        reading = Reading(client.stream("b"))
        assert waiting.wait(5)
        reading.stream.stop()
        assert reading.ended()
        assert server.gone.wait(SOON)
    assert reading.error is None
    assert len(server.heard) == 1 + used


def test_stop_ends_a_wait_between_retries(server):
    """During back-off a stop ends the call without another request."""
    waiting = threading.Event()
    server.scripts = [answer({}, status="429 Slow", headers="Retry-After: 50\r\n"), HELLO]
    with server.client(on_wait=lambda _: waiting.set()) as client:
        reading = Context().run(lambda: Reading(client.stream("a")))
        assert waiting.wait(5)
        reading.stream.stop()
        assert reading.ended()
    assert (reading.error, len(server.heard)) == (None, 1)


def test_stop_ends_a_connection_that_is_being_made(full_port):
    """While connecting a stop ends the call too."""
    with Client(base_url=f"http://127.0.0.1:{full_port}/v1", model="m", connect_timeout=30.0) as client:
        reading = Reading(client.stream("a"))
        assert not reading.ended(0.3)
        reading.stream.stop()
        assert reading.ended()
    assert reading.error is None


@pytest.mark.parametrize("moment", [Watch.__init__, socket.getaddrinfo], ids=["a request", "a look-up"])
def test_stop_just_before_anything_could_be_shut_ends_the_call(server, moment):
    """After the last look whether it was stopped, and before there is a socket: the one that is made then is not used."""
    server.scripts = [server.wait_until_gone]
    with server.client() as client:
        reading = Reading(client.stream("a"), stop_at=moment)
        assert reading.ended()
    assert (reading.error, server.heard) == (None, [])


def test_stop_just_before_a_connection_is_made_ends_the_call(full_port):
    """Where the socket is known, and is not connected yet: what shuts it then does not keep it from being connected."""
    with Client(base_url=f"http://127.0.0.1:{full_port}/v1", model="m", timeout=30.0) as client:
        reading = Reading(client.stream("a"), stop_at=socket.socket.connect)
        assert reading.ended()
    assert reading.error is None


def test_stop_before_the_first_chunk_sends_nothing(server):
    """A stream that was stopped before it began ends at once."""
    server.scripts = [HELLO]
    with server.client() as client:
        chunks = client.stream("a")
        chunks.stop()
        assert list(chunks) == []
    assert server.heard == []


def test_stop_after_the_end_does_nothing(server):
    """Neither the completion nor the client's next call suffers."""
    server.scripts = [HELLO]
    with server.client() as client:
        chunks = client.stream("a")
        list(chunks)
        chunks.stop()
        assert chunks.partial.finished
        assert client.complete("b").text == "Hello"


# ---------------------------------------------------------------- interrupts


@contextlib.contextmanager
def interrupted(when, where=client_module):
    """Send the main thread a SIGINT, as Ctrl-C does, once `when` is set and that thread is inside the client.

    Or inside another module `where`.
    """
    main = threading.get_ident()
    done = threading.Event()
    sent = []

    def is_inside():
        frame = sys._current_frames().get(main)
        while frame is not None and frame.f_code.co_filename != where.__file__:
            frame = frame.f_back
        return frame is not None

    def send():
        while not done.wait(0.02):
            if when.is_set() and is_inside():
                sent.append(time.monotonic())
                signal.pthread_kill(main, signal.SIGINT)
                return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            yield caught
        assert time.monotonic() - sent[0] < SOON
    finally:
        done.set()
        thread.join()


def now():
    """Return an event that is set already."""
    already = threading.Event()
    already.set()
    return already


def verbose(error):
    """Return the error's traceback with the locals of all frames, as `%xmode Verbose` writes it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", VerboseTB().text(type(error), error, error.__traceback__))


def assert_clean(error):
    """Check that an interrupt is ours, hangs on to no frame of the transport, and shows nothing of the key."""
    assert isinstance(error, Interrupted)
    assert error.kind == "interrupted"
    assert (error.__cause__, error.__context__) == (None, None)
    shown = verbose(error)
    assert "Interrupted" in shown
    assert not [start for start in range(len(KEY) - 9) if KEY[start : start + 10] in shown]


def test_an_interrupt_between_head_and_body_leaves_no_connection(server):
    """Where it falls as the connection hands the answer over, which nobody holds yet, the answer ends at the server too."""
    server.scripts = [says(stream_head() + piece(event("Hel")), server.wait_until_gone), HELLO]

    def interrupt(frame, what, _):
        if what == "return" and frame.f_code is httpcore.HTTP11Connection.handle_request.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with server.client() as client:
        sys.setprofile(interrupt)
        with pytest.raises(Interrupted):
            client.complete("a", stream=True)
        assert server.gone.wait(5)
        assert client.complete("b").text == "Hello"


def test_an_interrupt_ends_the_wait_for_an_answer(server):
    """Where no head ever comes, the interrupt goes on, the socket is closed, and nothing is tried again."""
    waiting = threading.Event()
    server.scripts = [says(lambda _: waiting.set(), server.wait_until_gone), HELLO]
    with server.client(api_key=KEY) as client:
        with interrupted(waiting) as caught:
            client.complete("a")
        assert_clean(caught.value)
        assert caught.value.partial is None
        assert server.gone.wait(SOON)
    assert len(server.heard) == 1


def test_an_interrupt_in_a_stall_keeps_what_had_come(server):
    """The partial completion ends with "interrupted", and the socket is closed."""
    shown = threading.Event()
    server.scripts = [says(stream_head(), piece(event("Hel")), server.wait_until_gone)]
    with server.client(api_key=KEY) as client:
        with interrupted(shown) as caught:
            for _ in client.stream("a"):
                shown.set()
        assert_clean(caught.value)
        assert server.gone.wait(SOON)
    partial = caught.value.partial
    assert (partial.text, partial.choices[0].finish_reason, partial.finished) == ("Hel", "interrupted", False)


def test_an_interrupt_ends_a_wait_between_retries(server):
    """During back-off the interrupt goes on without another request."""
    waiting = threading.Event()
    server.scripts = [answer({}, status="429 Slow", headers="Retry-After: 50\r\n"), HELLO]
    with server.client(api_key=KEY, on_wait=lambda _: waiting.set()) as client:
        with interrupted(waiting) as caught:
            Context().run(client.complete, "a")
        assert_clean(caught.value)
        assert caught.value.partial is None
    assert len(server.heard) == 1


# socket.create_connection, which everybody connects with, closes its socket only after an OSError.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_ends_a_connection_that_is_being_made(full_port):
    """While connecting the interrupt goes on, and no descriptor is left."""
    before = held()
    with (
        Client(base_url=f"http://127.0.0.1:{full_port}/v1", api_key=KEY, model="m", connect_timeout=30.0) as client,
        interrupted(now(), where=transport) as caught,  # before that the client may not have begun
    ):
        client.complete("a")
    assert_clean(caught.value)
    assert nothing_is_left(before)


def test_an_interrupt_ends_the_list_of_models(server):
    """The interrupt goes on, and nothing of the key is in its traceback."""
    waiting = threading.Event()
    server.scripts = [says(lambda _: waiting.set(), server.wait_until_gone)]
    with server.client(api_key=KEY) as client:
        with interrupted(waiting) as caught:
            client.models()
        assert server.gone.wait(SOON)
    # Where in the HTTP library it strikes is chance, and some of those frames know the headers.
    assert "httpcore" not in verbose(caught.value)


def test_a_client_works_after_an_interrupt(server):
    """The next call opens a new connection."""
    shown = threading.Event()
    server.scripts = [says(stream_head(), piece(event("Hel")), server.wait_until_gone), HELLO]
    with server.client() as client:
        with interrupted(shown):
            for _ in client.stream("a"):
                shown.set()
        assert client.complete("b").text == "Hello"


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_a_stop_after_an_interrupted_answer_does_not_interrupt_what_comes_next(how):
    """Also where the interrupt fell into the end of a wait, which would have noted that nobody waits any more."""

    def app(_environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [event("Hel"), event("lo", reason="stop"), DONE]

    late = []
    with Client(base_url="http://m.invalid/v1", model="m", transport=httpx.WSGITransport(app)) as client:
        chunks = client.stream("a")
        at_call(
            client_module._Reading.__exit__,
            chunks.stop if how == "stop" else partial(signal.raise_signal, signal.SIGINT),
        )
        with contextlib.nullcontext() if how == "stop" else pytest.raises(Interrupted):
            assert list(chunks) == []
        usual = signal.signal(signal.SIGINT, lambda *_: late.append(True))
        chunks.stop()
        signal.signal(signal.SIGINT, usual)
    assert late == []


# ---------------------------------------------------------------- nothing is left


def test_two_hundred_calls_leave_no_thread_socket_or_descriptor(server):
    """Whole, streamed, refused, cut and abandoned answers: all is closed when the client is."""
    refused = answer({"error": {"message": "no"}}, status="400 Bad Request")
    server.scripts = [whole(), HELLO, refused, says(stream_head(), piece(event("Hel"))), HELLO] * 40
    before = held()
    with server.client() as client:
        for number in range(200):
            with contextlib.suppress(CompletionsError), client.stream(str(number)) as chunks:
                for _ in chunks:
                    if number % 5 == 4:
                        break
    assert len(server.heard) == 200
    assert nothing_is_left(before)


@pytest.mark.parametrize(
    "first", [whole(), answer({"error": {"message": "no"}}, status="400 No")], ids=["answered", "refused"]
)
def test_stopping_what_has_ended_leaves_the_connection_alone(server, first):
    """A connection goes from one request to the next: stopping the first, which has ended, does not cut the second."""
    go = threading.Event()

    def slow(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        go.wait(10)
        connection.sendall(piece(event("lo", reason="stop")) + piece(DONE) + END)

    server.scripts = [first, slow]
    with server.client() as client:
        ended, going = client.send(client.request("a")), client.send(client.request("b", stream=True))
        with contextlib.suppress(CompletionsError):
            list(ended)
        assert next(going).text == "Hel"
        ended.stop()
        go.set()
        assert "".join(chunk.text for chunk in going) == "lo"
    assert len(server._open) == 1


def test_two_hundred_clients_leave_no_thread_socket_or_descriptor(server):
    """Closing a client closes its connection."""
    server.scripts = [whole()]
    before = held()
    for _ in range(200):
        with server.client() as client:
            client.complete("a")
    assert len(server._open) == 200
    assert nothing_is_left(before)


class Echo(ScriptedServer):
    """A server whose every answer is the prompt of its own request."""

    def _talk(self, connection):
        with connection, contextlib.suppress(OSError):
            while (heard := self._read(connection)) is not None:
                connection.sendall(whole(heard.json["prompt"]))


@pytest.fixture
def restless():
    """Let threads take turns as often as they can, so that what may collide does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
def test_calls_of_several_threads_do_not_mix():
    """One client may be used from several threads at once: each gets its own answer, and closing it leaves nothing."""
    found = {}
    echo = Echo()
    before = held()
    for turn in range(5):
        together = threading.Barrier(8)
        with echo.client() as client:

            def ask(number, client=client, together=together, turn=turn):
                together.wait()
                found[turn, number] = client.complete(f"{turn}-{number}").text

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
    nothing_left = nothing_is_left(before)
    echo.close()
    gc.collect()  # so that a socket left open is reported here, not in the next test
    assert found == {(turn, number): f"{turn}-{number}" for turn in range(5) for number in range(8)}
    assert nothing_left


# ---------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"object": "list", "data": [{"id": "a", "object": "model", "owned_by": "me"}, {"id": "b"}]}, ["a", "b"]),
        ({"models": [{"name": "a"}, {"name": "b"}]}, ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ({"data": []}, []),
    ],
)
def test_the_models_of_an_endpoint_are_listed(server, body, names):
    """The shapes that servers use are all read."""
    server.scripts = [answer(body)]
    with server.client(api_key=KEY) as client:
        assert [model.id for model in client.models()] == names
    heard = server.heard[0]
    assert (heard.method, heard.path, heard.body) == ("GET", "/v1/models", b"")
    assert heard.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("script", "kind", "error"),
    [
        (answer({"error": "no"}, status="404 Not Found"), "not_found", NotFoundError),
        (answer(b"<html>", kind="text/html"), "decode", DecodeError),
        (answer({"data": None}), "decode", DecodeError),
        (answer(b"\xff"), "decode", DecodeError),
        (answer(b"[" * 100_000), "decode", DecodeError),
        (hang_up, "connect", APIConnectionError),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "protocol", StreamError),
    ],
    ids=["404", "HTML", "null", "no UTF-8", "deep", "no answer", "cut"],
)
def test_a_list_of_models_that_fails_says_how(server, script, kind, error):
    """Its errors are of the same tree, with the same kinds."""
    server.scripts = [script]
    with server.client() as client, pytest.raises(error) as caught:
        client.models()
    assert (caught.value.kind, caught.value.endpoint) == (kind, server.base_url)
    assert server.base_url in str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "first_token_timeout", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1, "5", float("nan"), float("inf")], ids=str)
def test_seconds_that_are_none_are_told(name, seconds):
    """Before anything is asked, with the name of what was given."""
    with pytest.raises(ConfigurationError, match=f"^{name} takes seconds above 0, not "):
        Client(**{"timeout": 5, "first_token_timeout": 5, name: seconds})


def test_no_timeout_is_told():
    """None is no time at all, nor all the time there is."""
    with pytest.raises(ConfigurationError, match="timeout takes seconds above 0, not None"):
        Client(timeout=None)


@pytest.mark.parametrize(
    "silence",
    [says(), byte_by_byte(b'"data":[' + b" " * 70)],
    ids=["nothing", "byte by byte"],
)
def test_a_list_of_models_that_never_ends_is_a_timeout(server, silence):
    """Silence in the middle of the list is bounded too."""
    server.scripts = [says(stream_head("application/json"), piece(b"{"), silence, server.wait_until_gone)]
    with server.client(timeout=0.5) as client, within(3.5), pytest.raises(APITimeoutError):
        client.models()
    assert server.gone.wait(5)


# -- what an error says of what was done -------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
def test_an_error_says_how_often_it_was_asked(server, retries):
    """Where it was asked more than once."""
    server.scripts = [answer({"error": {"message": "no"}}, status="500 Internal Server Error")]
    with no_waits(), server.client(retries=retries) as client, pytest.raises(CompletionsError) as caught:
        client.complete("P")
    assert len(server.heard) == 1 + retries
    assert str(caught.value).endswith("no" if retries == 0 else "no (asked 3 times)")


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"timeout": 0.1}, "(--timeout, or --first-token-timeout)"),
        ({"first_token_timeout": 0.1}, "(--first-token-timeout)"),
    ],
)
def test_a_silence_names_the_option_that_bounds_it(server, settings, option):
    """As long as nothing else is said, --timeout bounds the first token too."""
    server.scripts = [server.wait_until_gone]
    with server.client(retries=0, **settings) as client, pytest.raises(CompletionsError) as caught:
        client.complete("P")
    assert str(caught.value).endswith(option)


def test_tables_and_texts_in_the_place_of_lists_are_refused(server):
    """They have an order of their own, in which each element would be asked for."""
    with server.client() as client:
        with pytest.raises(ConfigurationError, match="a column of texts"):
            client.complete_many(pd.DataFrame({"text": ["a"]}))
        with pytest.raises(ConfigurationError, match="a list of texts"):
            client.score(["a"], "abc")
    assert not server.heard


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("concurency", "concurrency"),
        ("max_concurrency", "concurrency"),
        ("packs", "pack"),
        ("executer", "executor"),
        ("modle", "model"),
        ("models", "model"),
    ],
)
def test_a_keyword_of_many_prompts_that_is_misspelt_is_no_field_of_the_request(server, field, meant):
    """It would go to the server, which ignores it, and do nothing here."""
    said = re.escape(f"complete_many has no keyword '{field}' (did you mean {meant}?): nothing was sent")
    with server.client() as client, pytest.raises(ConfigurationError, match=said):
        client.complete_many(["a"], **{field: 2})
    assert not server.heard


def test_a_keyword_of_scores_that_is_misspelt_is_told_too(server):
    """By the name of the method, whose keywords are others."""
    with server.client() as client, pytest.raises(ConfigurationError, match=r"score has no .*mean unconditional\?"):
        client.score("a", ["b"], unconditionl="")
    assert not server.heard


def test_fields_of_servers_go_with_many_prompts(server):
    """Whatever is not near a keyword is sent, and what is near `model` once the model is said."""
    server.scripts = [HELLO]
    fields = {"min_p": 0.1, "top_k": 3, "cache": True, "mode": "x", "best_of": 1, "models": ["a", "b"]}
    with server.client() as client:
        client.complete_many(["a"], model="m", **fields)
    assert {name: server.heard[0].json[name] for name in fields} == fields
