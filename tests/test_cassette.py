"""Record and replay over a real socket: the same bytes again, no key, no network, and nothing secret in the file."""

import base64
import gzip
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import DONE, END, answer, event, piece, stream, stream_head
from test_client import interrupted, now
from test_magics import holds_piece
from test_tab import tab

from completions_magic import Client
from completions_magic.cassette import Cassette
from completions_magic.errors import (
    APIStatusError,
    CassetteError,
    CompletionsError,
    ConfigurationError,
    Interrupted,
)

KEY = "sk-7Qw9Zr2Lk5Xv8Bn1Mc4Jd6Hf3Gs0Ty"
HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])
EVENTS = b"".join(
    b"data: "
    + json.dumps({"choices": [{"text": text, "finish_reason": reason}]}, ensure_ascii=False).encode()
    + b"\n\n"
    for text, reason in [("né", None), ("l ü", None), ("\u20ac\U0001f600", "stop")]
)
"""As many servers write it: in UTF-8, without escapes."""
EURO = EVENTS.index("\u20ac".encode())


def whole(*texts, **more):
    """Return an unstreamed completion with these choices."""
    choices = [{"text": text, "index": at, "finish_reason": "stop"} for at, text in enumerate(texts)]
    return answer({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices, **more})


def lines(path):
    """Return the interactions in the file, decoded."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def chunks(line):
    """Return the bytes of a line's chunks."""
    return [
        chunk.encode() if isinstance(chunk, str) else base64.b64decode(chunk["base64"]) for _, chunk in line["chunks"]
    ]


@pytest.fixture
def path(tmp_path):
    """Give a path for a cassette."""
    return tmp_path / "cassettes" / "t.jsonl"


def ask(server, path, prompt="P", *, record=None, sample=None, **asked):
    """Return the completion that one client of its own gives."""
    with server.client(cassette=path, record=record) as client:
        stream_ = client.send(client.request(prompt, **asked), sample=sample)
        for _ in stream_:
            pass
        return stream_.partial


# The same again

LOGPROBS = {
    "tokens": ["a", "b"],
    "token_logprobs": [-0.5, None],
    "top_logprobs": [{"a": -0.5}, None],
    "text_offset": [0, 1],
}


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        (HELLO, {"stream": True}),
        (whole("Hello"), {}),
        (whole("one", "two"), {"prompt": ["a", "b"]}),
        (whole("one"), {"prompt": [1, 2, 3]}),
        (whole("one", "two", "three"), {"n": 3}),
        (stream([event("a"), event("b", index=1), event("c", reason="stop"), event(index=1, reason="stop"), DONE]), {"n": 2, "stream": True}),
        (answer({"model": "m", "choices": [{"text": "ab", "index": 0, "logprobs": LOGPROBS, "finish_reason": "stop"}]}), {"logprobs": 1}),
        (stream([event("x", reason="length", usage={"total_tokens": 4}, odd=[1]), DONE]), {"stream": True, "max_tokens": 1}),
    ],
    ids=["streamed", "whole", "prompts", "token ids", "n", "n streamed", "logprobs", "other fields"],
)  # fmt: skip
def test_a_recording_replays_as_what_it_was(server, path, script, asked):
    """The completion is equal in every field, from another address, without a server and without its key."""
    server.scripts = [script]
    asked = {"prompt": "P", **asked}
    with server.client(cassette=path, api_key=KEY) as client:
        first = client.send(client.request(**asked))
        came = [chunk.to_dict() for chunk in first]
    server.close()
    with Client(base_url="http://127.0.0.1:9/v1", model="m", cassette=path, record="none") as client:
        second = client.send(client.request(**asked))
        assert [chunk.to_dict() for chunk in second] == came
    assert second.partial == first.partial
    assert len(server.heard) == len(lines(path)) == 1


def test_a_profile_whose_key_is_not_there_replays(server, path, tmp_path, monkeypatch):
    """Who only replays needs no key; who would ask is told which variable is missing, and nothing is sent."""
    (tmp_path / "config" / "completions-magic").mkdir(parents=True)
    profile = f'[profiles.lab]\nbase_url = "{server.base_url}"\napi_key_env = "LAB_KEY"\nmodel = "m"\n'
    (tmp_path / "config" / "completions-magic" / "profiles.toml").write_text(profile)
    server.scripts = [whole("Hello")]
    monkeypatch.setenv("LAB_KEY", KEY)
    with Client("lab", cassette=path) as client:
        client.complete("P")
    monkeypatch.delenv("LAB_KEY")
    with Client("lab", cassette=path) as client:
        assert client.complete("P").text == "Hello"
        with pytest.raises(ConfigurationError, match="LAB_KEY"):
            client.complete("Q")
    assert len(server.heard) == 1


def raw(transport, base_url):
    """Return the chunks of an answer as a program gets them."""
    body = {"model": "m", "prompt": "P", "stream": True}
    with (
        httpx.Client(transport=transport) as http,
        http.stream("POST", f"{base_url}/completions", json=body) as response,
    ):
        return list(response.iter_raw())


SPLITS = {
    "one": [EVENTS],
    "each byte": [bytes([byte]) for byte in EVENTS],
    "inside a character": [EVENTS[: EURO + 1], EVENTS[EURO + 1 : EURO + 5], EVENTS[EURO + 5 :]],
    "CRLF": [EVENTS.replace(b"\n", b"\r\n")[at : at + 7] for at in range(0, len(EVENTS) + 6, 7)],
    "BOM and bytes that are no UTF-8": [b"\xef\xbb\xbf", EVENTS, b": \xff\xfe no UTF-8\n\n"],
}


def test_chunk_borders_and_bytes_are_kept(server, path):
    """Every HTTP chunk is a chunk of the line, to the byte and in the order of time, and replays as one."""
    for name, content in SPLITS.items():
        server.scripts = [stream_head() + b"".join(map(piece, content)) + END]
        path.unlink(missing_ok=True)
        live, again = (raw(Cassette(path, transport), server.base_url) for transport in (httpx.HTTPTransport(), None))
        (line,) = lines(path)
        assert live == again == chunks(line), name
        assert b"".join(live) == b"".join(content), name
        assert line["text"] == ["nél ü\u20ac\U0001f600"], name
        times = [at for at, _ in line["chunks"]]
        assert times == sorted(times)
        assert line["headers"] == {"content-type": "text/event-stream"}


def test_a_compressed_answer_replays(server, path):
    """A gzip body stays as it came, the line says in words what it spells, and replay reads it."""
    body = gzip.compress(whole("Hello").partition(b"\r\n\r\n")[2])
    server.scripts = [answer(body, headers="Content-Encoding: gzip\r\nSet-Cookie: a=b\r\n")]
    assert ask(server, path).text == "Hello"
    server.close()
    assert ask(server, path, record="none").text == "Hello"
    (line,) = lines(path)
    assert (b"".join(chunks(line)), line["text"]) == (body, ["Hello"])
    assert line["headers"] == {"content-type": "application/json", "content-encoding": "gzip"}


def test_replay_takes_the_recorded_time_where_it_is_asked_to(server, path):
    """With pace 1 no chunk comes earlier than it was recorded, with 2 twice as late; without it nothing waits."""
    server.scripts = [HELLO]
    ask(server, path, stream=True)
    line = lines(path)[0]
    line["chunks"] = [[40 * at, chunk] for at, (_, chunk) in enumerate(line["chunks"])]
    path.write_text(json.dumps(line) + "\n")
    for pace in (1, 2):
        with httpx.Client(transport=Cassette(path, record="none", pace=pace)) as http:
            start = time.monotonic()
            body = {"model": "m", "prompt": "P", "stream": True}
            response = http.send(http.build_request("POST", "http://x.invalid/v1/completions", json=body), stream=True)
            came = [time.monotonic() - start for _ in response.iter_raw()]
        assert all(at >= pace * recorded / 1000 for at, (recorded, _) in zip(came, line["chunks"], strict=True))


def test_the_models_are_recorded_too(server, path):
    """What an endpoint lists replays as well."""
    server.scripts = [answer({"data": [{"id": "base-7b"}]})]
    with server.client(cassette=path) as client:
        assert [model.id for model in client.models()] == ["base-7b"]
    server.close()
    with server.client(cassette=path, record="none") as client:
        assert [model.id for model in client.models()] == ["base-7b"]


@pytest.mark.parametrize("body", [{"error": {"message": "no such model"}}, b""], ids=["message", "empty"])
def test_a_refusal_of_what_was_asked_is_kept(server, path, body):
    """The same error is raised again, with status and message, and nothing is asked."""
    for status in (400, 404, 413, 422):
        server.scripts = [answer(body, status=f"{status} No")]
        said = []
        for record in ("new_episodes", "none"):
            with pytest.raises(APIStatusError) as raised:
                ask(server, path, f"P{status}", record=record)
            said.append((raised.value.status, type(raised.value), str(raised.value).partition(": ")[2]))
        assert said[0] == said[1]
        assert said[0][0] == status
    assert len(server.heard) == 4


def test_a_refusal_of_who_asks_and_when_is_not_kept(server, path):
    """Nothing is written, and the next to ask gets the answer as its first call."""
    for status in (401, 402, 403, 407, 408, 409, 425, 429, 500, 503, 301, 307):
        server.heard.clear()
        refused = answer({"error": {"message": "not now"}}, status=f"{status} No", headers="Location: /x\r\n")
        server.scripts = [refused, HELLO]
        with server.client(cassette=path, retries=0) as client:
            with pytest.raises(CompletionsError):
                client.complete(f"P{status}", stream=True)
            assert client.complete(f"P{status}", stream=True).text == "Hello"
        assert (lines(path)[-1]["call"], lines(path)[-1]["status"]) == (1, 200), status
    assert len(lines(path)) == 12


def test_what_another_program_asks_is_recorded_too(server, path):
    """The transport needs no client of ours; a body that is no JSON counts as text."""
    server.scripts = [answer(b"plain", kind="text/plain")]
    for transport in (Cassette(path, httpx.HTTPTransport()), Cassette(path, record="none")):
        with httpx.Client(transport=transport) as http:
            assert http.put(f"{server.origin}/other?x=1", content=b"\xffno JSON").text == "plain"
    assert lines(path)[0]["request"] == {"method": "PUT", "path": "/other?x=1", "body": "\ufffdno JSON"}


# Calls and samples


def three(server, path):
    """Record three answers to one request."""
    server.scripts = [whole("one"), whole("two"), whole("three")]
    with server.client(cassette=path) as client:
        assert [client.complete("P").text for _ in range(3)] == ["one", "two", "three"]


def test_the_kth_identical_request_replays_the_kth_recording(server, path):
    """Samples stay apart, in their order; rewinding begins again; the next one is asked for."""
    three(server, path)
    server.scripts = [whole("four")]
    cassette = Cassette(path)
    with server.client(cassette=cassette) as client:
        assert [client.complete("P").text for _ in range(3)] == ["one", "two", "three"]
        assert len(server.heard) == 3
        cassette.tape.rewind()
        assert [client.complete("P").text for _ in range(4)] == ["one", "two", "three", "four"]
    assert [line["call"] for line in lines(path)] == [1, 2, 3, 4]


def test_a_sample_is_picked_by_its_number(server, path):
    """--sample K replays the K-th and counts no call; one that is not there is recorded under its number."""
    three(server, path)
    with server.client(cassette=path, record="none") as client:
        texts = []
        for sample in (3, 1, 3, None, None):
            stream_ = client.send(client.request("P"), sample=sample)
            list(stream_)
            texts.append(stream_.partial.text)
    assert texts == ["three", "one", "three", "one", "two"]
    server.scripts = [whole("five")]
    assert ask(server, path, sample=5).text == "five"
    assert ask(server, path, sample=5, record="none").text == "five"


def test_a_retry_is_no_further_call(server, path):
    """What failed before the answer came uses up no number."""
    server.scripts = [answer({"error": "busy"}, status="503 Busy"), HELLO, answer({}, status="429 Slow"), HELLO]
    with server.client(cassette=path) as client:
        assert [client.complete("P", stream=True).text for _ in range(2)] == ["Hello", "Hello"]
    assert [(line["call"], line["status"]) for line in lines(path)] == [(1, 200), (2, 200)]
    assert len(server.heard) == 4


def test_threads_that_share_a_cassette_get_each_recording_once(server, path):
    """Identical requests at the same time are different calls."""
    server.scripts = [whole(f"sample {number}") for number in range(16)]
    for record in ("new_episodes", "none"):
        with server.client(cassette=path, record=record) as client, ThreadPoolExecutor(16) as threads:
            texts = [came.text for came in threads.map(client.complete, ["P"] * 16)]
        assert sorted(texts) == sorted(f"sample {number}" for number in range(16))
    assert len(server.heard) == 16


# The modes


@pytest.mark.parametrize(
    ("record", "known", "unknown"),
    [
        ("none", "old", CassetteError),
        ("once", "old", CassetteError),
        ("new_episodes", "old", "new"),
        ("all", "new", "new"),
        (None, "old", "new"),
    ],
)
def test_a_mode_says_what_is_asked(server, path, record, known, unknown):
    """The table of the README."""
    server.scripts = [whole("old")]
    ask(server, path, "known")
    server.scripts = [whole("new")]
    with server.client(cassette=path, record=record) as client:
        assert client.complete("known").text == known
        if isinstance(unknown, str):
            assert client.complete("unknown").text == unknown
        else:
            with pytest.raises(unknown):
                client.complete("unknown")
    assert len(server.heard) == 1 + (known == "new") + (unknown == "new")


def test_the_environment_chooses_the_mode_where_nothing_else_does(server, path, monkeypatch):
    """COMPLETIONS_RECORD is the mode of every cassette that names none."""
    monkeypatch.setenv("COMPLETIONS_RECORD", "none")
    server.scripts = [whole("Hello")]
    with pytest.raises(CassetteError, match="record mode none"):
        ask(server, path)
    assert ask(server, path, record="once").text == "Hello"
    assert ask(server, path).text == "Hello"
    assert len(server.heard) == 1


def test_a_mode_without_a_cassette_is_refused(server):
    """Who says that nothing may be asked is not asked for: the line refuses it too."""
    with pytest.raises(ConfigurationError, match="cassette=PATH names one"):
        server.client(record="none")
    assert server.heard == []


def test_once_records_where_the_file_was_empty(server, path):
    """A fresh file takes everything that this client asks; the next client only replays."""
    server.scripts = [whole("Hello")]
    with server.client(cassette=path, record="once") as client:
        assert [client.complete(prompt).text for prompt in ("P", "Q", "P")] == ["Hello"] * 3
    with server.client(cassette=path, record="once") as client:
        assert [client.complete(prompt).text for prompt in ("P", "Q", "P")] == ["Hello"] * 3
        with pytest.raises(CassetteError, match=r"does not hold this request \(record mode once\)"):
            client.complete("R")
    assert len(server.heard) == 3


def test_none_makes_no_file(server, path):
    """Where there is no cassette the error says so, and none is made, nor its folder."""
    with pytest.raises(
        CassetteError, match=r"t\.jsonl does not hold this request \(record mode none\): it is not there"
    ):
        ask(server, path, record="none")
    assert not path.parent.exists()
    assert not server.heard


def test_all_records_anew_in_place_and_says_what_differs(server, path):
    """The line count stays, the others stay to the byte, and the change is told word by word."""
    server.scripts = [whole("a red fox")]
    for prompt in ("P", "Q", "R"):
        ask(server, path, prompt)
    before = path.read_bytes().splitlines()
    server.scripts = [whole("a blue fox")]
    with server.client(cassette=path, record="all") as client:
        client.complete("Q")
    after = path.read_bytes().splitlines()
    assert (after[0], after[2], len(after)) == (before[0], before[2], 3)
    assert lines(path)[1]["text"] == ["a blue fox"]
    cassette = Cassette(path, httpx.HTTPTransport(), record="all")
    server.scripts = [whole("a blue fish")]
    with httpx.Client(transport=cassette) as http:
        for prompt in ("R", "R"):
            http.post(f"{server.base_url}/completions", json={"model": "m", "prompt": prompt})
    assert [str(change) for change in cassette.changes] == ["a [-red-]{+blue+} [-fox-]{+fish+}"]
    assert [(line["request"]["body"]["prompt"], line["call"]) for line in lines(path)] == [("P", 1), ("Q", 1), ("R", 1), ("R", 2)]  # fmt: skip


NEAREST = [
    ({"prompt": "Once upon", "temperature": 0.5}, "line 2: temperature is 0.5, recorded 1"),
    ({"prompt": "Once upon", "temperature": 1, "seed": 7}, "line 2: seed is 7, recorded not set"),
    ({"prompt": "Once upin", "temperature": 1}, "line 2: prompt is 'Once upin', recorded 'Once upon'"),
    ({"prompt": "Zebra", "model": "big"}, "line 1: model is 'big', recorded 'm'"),
]


def test_none_names_the_nearest_recording_and_what_differs(server, path):
    """The error of a request that is not recorded is the diagnosis."""
    server.scripts = [whole("x")]
    ask(server, path, "Zebra")
    ask(server, path, "Once upon", temperature=1)
    for asked, said in NEAREST:
        with pytest.raises(CassetteError) as raised:
            ask(server, path, record="none", **asked)
        start = "the cassette t.jsonl does not hold this request (record mode none); the nearest is "
        assert str(raised.value) == start + said
    assert len(server.heard) == 2


def test_none_says_how_often_it_holds_the_request(server, path):
    """Where only the number of calls is exceeded, that is what is said, and what helps."""
    three(server, path)
    with server.client(cassette=path, record="none") as client:
        for _ in range(3):
            client.complete("P")
        for _ in range(2):
            with pytest.raises(
                CassetteError, match="holds this request 3 times, and this is call 4: --sample 1 replays"
            ):
                client.complete("P")


def test_a_mode_that_there_is_not_is_refused(path, monkeypatch):
    """With the nearest that there is; from the environment too."""
    with pytest.raises(ConfigurationError, match=r"'nome' \(did you mean none\?\)"):
        Cassette(path, record="nome")
    monkeypatch.setenv("COMPLETIONS_RECORD", "everything")
    with pytest.raises(ConfigurationError, match="a record mode is none, once, new_episodes, all, not 'everything'"):
        Client(cassette=path)


# While it comes


def test_the_first_event_arrives_while_the_server_holds_the_rest_back(server, path):
    """A recording is as live as what is recorded: nothing waits for the end."""
    seen = threading.Event()

    def script(connection):
        connection.sendall(stream_head() + piece(event("first")))
        assert seen.wait(5)
        connection.sendall(piece(event(" last", reason="stop") + DONE) + END)

    server.scripts = [script]
    with server.client(cassette=path) as client:
        coming = client.stream("P")
        assert next(coming).text == "first"
        seen.set()
        assert "".join(chunk.text for chunk in coming) == " last"
    assert lines(path)[0]["text"] == ["first last"]


def holding(server, path, leave):
    """Take the first event of an answer that never ends, and leave it by `leave`."""

    def script(connection):
        connection.sendall(stream_head() + piece(event("half ")))
        server.wait_until_gone(connection)

    server.scripts = [script, whole("never streamed"), HELLO]
    with server.client(cassette=path) as client:
        coming = client.stream("P")
        assert next(coming).text == "half "
        leave(client, coming)


def close(_, coming):
    """Leave by closing the stream."""
    coming.close()


def stop(_, coming):
    """Leave by a Stop from another thread."""
    threading.Thread(target=coming.stop).start()
    assert not list(coming)


def interrupt(_, coming):
    """Leave by Ctrl-C while the next chunk is waited for."""
    with interrupted(now()) as caught:
        list(coming)
    assert isinstance(caught.value, Interrupted)


@pytest.mark.parametrize("leave", [close, stop, interrupt])
def test_an_answer_that_was_left_is_on_disk_marked_and_never_replayed(server, path, leave):
    """What had come is kept as cut; the next time it is asked for whole, and takes the cut one's line."""
    holding(server, path, leave)
    assert [(line["cut"], line["text"], line["call"]) for line in lines(path)] == [(True, ["half "], 1)]
    with pytest.raises(
        CassetteError, match="its answer was cut when it was recorded; --record new_episodes asks again"
    ):
        ask(server, path, record="none", stream=True)
    server.scripts = [HELLO]
    assert ask(server, path, stream=True).text == "Hello"
    assert [(line.get("cut"), line["text"], line["call"]) for line in lines(path)] == [(None, ["Hello"], 1)]


CUTS = {
    "hung up": stream_head() + piece(event("half ")),
    "no end": stream_head() + piece(event("half ")) + END,
    "error inside": stream([event("half "), b'data: {"error": {"message": "out of memory"}}\n\n']),
    "short body": answer({"choices": []}).replace(b"Content-Length: ", b"Content-Length: 9")[:-4],
}


@pytest.mark.parametrize("script", CUTS.values(), ids=CUTS)
def test_an_answer_that_the_server_cut_uses_up_no_call(server, path, script):
    """It is kept as cut, and who asks again on the same cassette gets, and records, the whole as the first call."""
    server.scripts = [lambda connection: connection.sendall(script), HELLO]
    cassette = Cassette(path)
    with server.client(cassette=cassette, retries=0) as client, pytest.raises(CompletionsError):
        client.complete("P", stream=True)
    assert lines(path)[0]["cut"] is True
    with server.client(cassette=cassette) as client:  # the server has left the first one's connection
        assert client.complete("P", stream=True).text == "Hello"
    assert [(line["call"], line["text"]) for line in lines(path)] == [(1, ["Hello"])]


def test_a_cut_answer_never_replaces_a_whole_one(server, path):
    """Recording anew that fails leaves what was there, and what was there replays."""
    server.scripts = [HELLO, lambda connection: connection.sendall(CUTS["no end"])]
    ask(server, path, stream=True)
    with pytest.raises(CompletionsError), server.client(cassette=path, record="all", retries=0) as client:
        client.complete("P", stream=True)
    assert ask(server, path, record="none", stream=True).text == "Hello"


# By hand


def edited(path, old, new):
    """Change a piece of the file."""
    before = path.read_text(encoding="utf-8")
    assert old in before
    path.write_text(before.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"text":["Hello"]', '"text":["Hallo"]'), ('\\"text\\": \\"Hel\\"', '\\"text\\": \\"Hal\\"')],
    ids=["text", "chunk"],
)
def test_a_text_that_was_edited_is_not_replayed(server, path, old, new):
    """Neither half of an edit passes for what came; the error says what to do, and that does it."""
    server.scripts = [HELLO]
    ask(server, path, stream=True)
    edited(path, old, new)
    with server.client(cassette=path, record="none") as client:
        for _ in range(2):
            with pytest.raises(CassetteError, match=r'recording of {"model": "m", .+ was edited: .+ --record all'):
                client.complete("P", stream=True)
    assert ask(server, path, record="all", stream=True).text == "Hello"
    assert ask(server, path, record="none", stream=True).text == "Hello"
    assert len(lines(path)) == 1


def test_a_parameter_that_was_edited_makes_it_another_request(server, path):
    """The edited request replays; the one that was asked is no longer there, and the error names the parameter."""
    server.scripts = [whole("Hello")]
    ask(server, path, temperature=0.5)
    edited(path, '"temperature":0.5', '"temperature":1.0')
    assert ask(server, path, record="none", temperature=1).text == "Hello"
    with pytest.raises(CassetteError, match=r"the nearest is line 1: temperature is 0.5, recorded 1.0"):
        ask(server, path, record="none", temperature=0.5)


def test_a_chunk_that_was_damaged_is_one_line(server, path):
    """What the index does not look at is checked when it is wanted, and named by its line."""
    server.scripts = [whole("Hello")]
    ask(server, path)
    edited(path, '"chunks":[[', '"chunks":[["soon",')
    with pytest.raises(CassetteError, match=r"the cassette t\.jsonl: line 1 is damaged"):
        ask(server, path, record="none")


# Nothing secret


def failure_of(work):
    """Return what `work` raises of ours, or None."""
    try:
        work()
    except CompletionsError as error:
        return error
    return None


def escaped(key):
    """Spell a text in JSON's escapes."""
    return "".join(f"\\u{ord(sign):04x}" for sign in key)


ECHOES = {
    "plain": stream([event(f"your key is {KEY}", reason="stop"), DONE]),
    "split": stream([*(event(KEY[at : at + 3]) for at in range(0, len(KEY), 3)), event(reason="stop"), DONE]),
    "piece": stream([event(f"…{KEY[9:21]}…", reason="stop"), DONE]),
    "escaped": stream([event("KEY", reason="stop").replace(b"KEY", escaped(KEY).encode()), DONE]),
    "bytes": stream_head() + b"".join(piece(EVENTS.replace(b"n", KEY.encode())[at : at + 2]) for at in range(0, 2000, 2) if at < len(EVENTS) + 2 * len(KEY)) + END,
    "model": whole("x", model=KEY),
    "escaped model": whole("x", model="KEY").replace(b"KEY", escaped(KEY).encode()).replace(b"Content-Length: ", b"X: "),
    "gzip": answer(gzip.compress(whole(KEY).partition(b"\r\n\r\n")[2]), headers="Content-Encoding: gzip\r\n"),
    "400": answer({"error": {"message": f"{KEY} is wrong"}}, status="400 Bad"),
    "escaped 400": answer(b'{"error": "' + escaped(KEY).encode() + b'"}', status="400 Bad"),
    "gzip 400": answer(gzip.compress(b'{"error": "%s"}' % KEY.encode()), status="400 Bad", headers="Content-Encoding: gzip\r\n"),
    "type": answer(whole("x").partition(b"\r\n\r\n")[2], kind=f"application/json; key={KEY}"),
    "cut": stream_head() + piece(event(f"half {KEY}")) + END,
}  # fmt: skip


def test_an_answer_that_holds_the_key_is_not_recorded(server, path, caplog):
    """No byte of the file, in any spelling, holds a piece of the key; a warning says why it is not there."""
    why = "the key is in the request or in its answer, so neither is recorded"
    for name, script in ECHOES.items():
        caplog.clear()
        server.scripts = [lambda connection, script=script: connection.sendall(script)]
        with server.client(cassette=path, api_key=KEY, retries=0) as client:
            said = failure_of(lambda client=client: client.complete("P", stream=True))
        assert not path.exists() or path.read_bytes() == b"", name
        assert why in caplog.text, name
        assert not holds_piece(f"{said}{caplog.text}"), name
    assert {heard.headers["authorization"] for heard in server.heard} == {f"Bearer {KEY}"}


def test_headers_that_name_an_account_are_not_written(server, path):
    """Of all headers, of the request and of the answer, two are kept, and they name nobody."""
    secret = "Set-Cookie: session=f00dfeed\r\nX-Account-Id: acct-123\r\nX-Request-Id: req-9\r\nOpenAI-Organization: org-77\r\n"
    server.scripts = [answer(whole("x").partition(b"\r\n\r\n")[2], headers=secret)]
    with server.client(cassette=path, api_key=KEY) as client:
        client.complete("P")
    written = path.read_text()
    assert not holds_piece(written)
    for word in ("f00dfeed", "acct", "req-9", "org-77", "127.0.0.1", str(server.port), "uthorization", "Bearer"):
        assert word not in written
    assert list(lines(path)[0]["headers"]) == ["content-type"]


def test_a_request_of_another_program_that_holds_the_key_is_not_recorded(server, path):
    """Ours are refused before they are sent; those of others leave no line."""
    server.scripts = [whole("x")]
    with httpx.Client(transport=Cassette(path, httpx.HTTPTransport())) as http:
        http.post(f"{server.base_url}/completions", json={"prompt": KEY}, headers={"Authorization": f"Bearer {KEY}"})
    assert not path.exists()


# In a notebook


def test_a_cell_records_and_replays(cells, path):
    """--cassette, --record and --sample do for a cell what they say; %completions cassette shows and rewinds."""
    cells.server.scripts = [whole("one"), whole("two")]
    options = f"--no-stream --view none --cassette {path}"
    for name in ("a", "b"):
        assert cells.ask("P", f"{options} -o {name}").success
    shown = cells.run("%completions cassette rewind")
    assert shown.success
    for name, more in (("c", ""), ("d", "--record none"), ("e", "--sample 1 --record none")):
        assert cells.ask("P", f"{options} -o {name} {more}").success
    assert [cells.names[name].text for name in "abcde"] == ["one", "two", "one", "two", "one"]
    assert len(cells.heard) == 2
    failed = cells.ask("P", f"{options} --record none").error_in_exec
    assert "holds this request 2 times, and this is call 3" in str(failed)


def test_the_settings_hold_for_every_cell(cells, path, capsys):
    """%config names the cassette and the mode; the line and the environment come first."""
    cells.server.scripts = [whole("one")]
    cells.run(f"%config CompletionsMagics.cassette = {str(path)!r}")
    cells.run("%config CompletionsMagics.record = 'none'")
    assert "does not hold this request (record mode none)" in str(cells.ask("P", "--no-stream").error_in_exec)
    assert cells.ask("P", "--no-stream --record new_episodes -o a").success
    capsys.readouterr()
    cells.run("%completions cassette")
    assert capsys.readouterr().out == f"{path}: 1 interactions, record mode none\n"
    cells.run("%completions cassette rewind")
    assert cells.ask("P", "--no-stream -o b").success
    assert (cells.names["b"].text, len(cells.heard)) == ("one", 1)


def test_the_environment_comes_before_the_setting(cells, path, monkeypatch):
    """COMPLETIONS_RECORD=none lets no cell ask, whatever a setting says."""
    monkeypatch.setenv("COMPLETIONS_RECORD", "none")
    cells.run("%config CompletionsMagics.record = 'all'")
    assert "record mode none" in str(cells.ask("P", f"--no-stream --cassette {path}").error_in_exec)
    assert not cells.heard


def test_the_options_of_a_cassette_need_one(cells):
    """An option that would do nothing is an error, before anything is sent."""
    for options in ("--record none", "--sample 1"):
        assert "--record and --sample need a cassette" in str(cells.ask("P", options).error_in_exec)
    assert not cells.heard


def test_recording_anew_prints_the_difference(cells, path, capsys):
    """The cell says, word by word, how the answer differs from the last recording."""
    cells.server.scripts = [whole("a red fox"), whole("a blue fox")]
    cells.ask("P", f"--no-stream -q --cassette {path}")
    cells.run("%completions cassette rewind")
    capsys.readouterr()
    cells.ask("P", f"--no-stream -q --cassette {path} --record all")
    assert capsys.readouterr().out == "recorded again: a [-red-]{+blue+} fox\n"


def test_the_history_and_verify_name_every_cell(cells, path, capsys):
    """%completions history lists what was asked; verify asks the endpoint again and says what differs."""
    cells.server.scripts = [whole("one"), whole("one"), whole("two", model="m2")]
    cells.run(f"%config CompletionsMagics.cassette = {str(path)!r}")
    cells.ask("P", "--no-stream -q --temperature 0.5")
    cells.run("%completions cassette rewind")
    capsys.readouterr()
    cells.run("%completions history")
    shown = re.fullmatch(r"In\[(\d)\] (.+)\n", capsys.readouterr().out)
    assert shown[2] == f"{cells.server.base_url} m temperature=0.5 -> 'one'"
    cells.run("%completions verify")
    assert capsys.readouterr().out == f"In[{shown[1]}] identical\n"
    before = path.read_bytes()
    cells.run("%completions verify")
    said = "server drifted: model is m2, was m; [-one-]{+two+}\n([-m-]{+m2+} · complete)"
    assert capsys.readouterr().out == f"In[{shown[1]}] {said}\n"
    assert path.read_bytes() == before


def test_tab_offers_modes_and_cassettes(cells, tmp_path):
    """After --record the modes, after --cassette the files that there are."""
    (tmp_path / "cassettes").mkdir()
    for name in ("cassettes/paper.jsonl", "top.jsonl", "other.txt"):
        (tmp_path / name).write_text("")
    found = [tab(cells.shell, f"%%complete {typed}|") for typed in ("--record ", "--record n", "--cassette ")]
    assert [sorted(line.split()[-1] for line in lines) for lines in found] == [
        ["all", "new_episodes", "none", "once"],
        ["new_episodes", "none"],
        ["cassettes/paper.jsonl", "top.jsonl"],
    ]


def test_no_cassette_is_named_in_words(cells, capsys):
    """Without one %completions cassette says how to name it."""
    cells.run("%completions cassette")
    assert capsys.readouterr().out.startswith("there is no cassette: --cassette PATH")


def test_a_cassette_that_cannot_be_written_is_said_before_anything_is_asked(server):
    """A folder that cannot be made, by root neither: nothing is sent, so nothing is paid for that is not kept."""
    said = "the cassette x.jsonl cannot be made in /proc/cassettes: "
    with server.client(cassette="/proc/cassettes/x.jsonl") as client, pytest.raises(CassetteError, match=said):
        client.complete("P")
    assert server.heard == []


def test_a_sample_leaves_no_gap(cells, server):
    """--sample takes what is recorded or the next one; a later one would leave calls that nobody can replay."""
    server.scripts = [whole("one")]
    where = f"%%complete -m m --base-url {server.base_url} --cassette x.jsonl"
    result = cells.run(f"{where} --sample 3\nP")
    assert "--sample 3: the cassette holds 0 of this request, so the next is 1" in str(result.error_in_exec)
    assert server.heard == []
    for sample in (1, 2, 1):
        cells.run(f"{where} --sample {sample}\nP").raise_error()
    assert len(server.heard) == 2
