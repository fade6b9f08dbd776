"""From the bytes of an answer to a completion, whatever a server sends."""

import contextlib
import itertools
import json
import re
import tracemalloc
from html import escape
from urllib.parse import quote

import pytest
from conftest import DONE, answer, event, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from completions_magic.answer import ANSWER_LIMIT, AnswerReader, describe_error
from completions_magic.errors import AnswerError, CompletionsError, DecodeError, StreamError, TooLargeError
from completions_magic.events import EVENT_LIMIT
from completions_magic.inert import inert
from completions_magic.key import ApiKey
from completions_magic.record import record
from completions_magic.schema import Completion, Growing, Usage

relaxed = settings(deadline=None)

KEY = "sk-0123456789+abcdefghij/klmnopqrst="


def chunks(pieces):
    """Return the chunks in `pieces` of bytes."""
    return list(AnswerReader().chunks(pieces))


def read(*pieces, key=None):
    """Return the completion in `pieces` of bytes; raise where they are not a whole answer."""
    reader, growing = AnswerReader(key), Growing()
    for chunk in reader.chunks(pieces):
        growing.add(chunk)
    reader.check_end(growing)
    return growing.completion()


def data(payload):
    """Return the event that holds `payload`."""
    return b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"


def whole(text="Hello", **more):
    """Return an answer in one JSON object."""
    return json.dumps({"choices": [{"text": text, "index": 0, "finish_reason": "stop"}], **more}).encode()


# -- whole answers and streams -----------------------------------------------------------------------------------------


def test_a_stream_and_its_json_are_the_same_completion():
    """Both forms of one answer are equal."""
    named = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    assert read(event("Hel"), event("lo"), event(reason="stop"), DONE) == read(whole(**named))


@relaxed
@given(
    st.sampled_from(
        [
            event("Hé") + event("llo 🎈\n", reason="stop") + DONE,
            b"\xef\xbb\xbf" + event("Hé") + event("llo 🎈\n", reason="stop") + DONE,
            b": keep-alive\n\n" + event("Hé") + event("llo 🎈\n") + DONE,
            b"\r\n\r\nevent: message\r\nid: 1\r\n" + (event("Hé") + event("llo 🎈\n") + DONE).replace(b"\n", b"\r\n"),
            whole("Héllo 🎈\n"),
            b"\xef\xbb\xbf \r\n" + whole("Héllo 🎈\n"),
        ]
    ),
    st.lists(st.integers(0, 400)),
)
def test_no_cut_of_the_bytes_changes_the_text(body, cuts):
    """A stream and a JSON object read the same however their bytes are cut, characters included."""
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    assert read(*(body[start:end] for start, end in itertools.pairwise(edges))).text == "Héllo 🎈\n"


def test_a_chunk_is_given_before_the_next_bytes_are_asked_for():
    """Reading waits for nothing that it does not need."""
    pieces = iter([event("Hel"), event("lo"), DONE])
    reading = AnswerReader().chunks(pieces)
    assert next(reading).text == "Hel"
    assert next(pieces) == event("lo")


def test_nothing_is_read_after_done():
    """The stream ends at `[DONE]`, not when the server hangs up."""
    pieces = iter([event("Hello", reason="stop") + DONE, event("never")])
    assert [chunk.text for chunk in AnswerReader().chunks(pieces)] == ["Hello"]
    assert next(pieces) == event("never")


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE] \n\n", b"data: [DONE]"])
def test_every_spelling_of_done_ends_the_stream(done):
    """Blanks around `[DONE]`, and its missing blank line, make no difference."""
    assert read(event("Hello"), done).text == "Hello"


# -- quirks of real servers --------------------------------------------------------------------------------------------

QUIRKS = {
    "no [DONE]": [event("Hel"), event("lo", reason="stop")],
    "no [DONE], no blank line": [event("Hel"), event("lo", reason="stop").rstrip()],
    "no finish_reason but [DONE]": [event("Hel"), event("lo"), DONE],
    "the finish in a chunk of its own": [event("Hel"), event("lo"), event(reason="length"), DONE],
    "a comment first": [b": ping\n\n", event("Hello", reason="stop"), DONE],
    "comments between": [event("Hel"), b": ping\n\n: ping\n\n", event("lo", reason="stop"), DONE],
    "a bare field first": [b"data\n\n", event("Hello", reason="stop"), DONE],
    "other fields first": [b"retry: 10\nid\nevent: x\n", event("Hello", reason="stop"), DONE],
    "empty events": [b"data:\n\ndata\n\n", event("Hello", reason="stop"), b"data: \n\n", DONE],
    "several events in one read": [event("Hel") + event("lo") + event(reason="stop") + DONE],
    "no id, created, model": [data({"choices": [{"text": "Hello", "index": 0, "finish_reason": "stop"}]}), DONE],
    "no index": [data({"choices": [{"text": "Hel"}]}), data({"choices": [{"text": "lo"}]}), DONE],
    "no text": [event("Hello"), data({"choices": [{"index": 0, "finish_reason": "stop"}]}), DONE],
    "null text": [event("Hello"), data({"choices": [{"text": None, "index": 0, "finish_reason": "stop"}]}), DONE],
    "null logprobs": [data({"choices": [{"text": "Hello", "index": 0, "logprobs": None}]}), DONE],
    "empty finish_reason": [data({"choices": [{"text": "Hello", "finish_reason": ""}]}), DONE],
    "null error": [event("Hello", error=None), DONE],
    "no choices in the first chunk": [data({"choices": [], "usage": None}), event("Hello"), DONE],
    "null choices": [event("Hello"), data({"choices": None, "usage": {}}), DONE],
    "usage only, without choices": [event("Hello"), data({"usage": {"total_tokens": 3}}), DONE],
    "index not below n": [event("Hello", index=3, reason="stop"), DONE],
    "the text after the finish": [event("Hel", reason="stop"), event("lo"), DONE],
    "JSON with blanks around": [b" \n" + whole() + b"\n\n"],
    "JSON in pieces": [whole()[:9], whole()[9:]],
    "JSON without a finish_reason": [b'{"choices": [{"text": "Hello"}]}'],
}


@pytest.mark.parametrize("pieces", QUIRKS.values(), ids=QUIRKS)
def test_the_quirks_of_real_servers_do_not_change_the_text(pieces):
    """What servers leave out or put elsewhere does not cost a character."""
    assert read(*pieces).text == "Hello"


def test_a_usage_only_chunk_counts_and_adds_no_choice():
    """The last chunk of a stream with `include_usage` has usage and no choices."""
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    completion = read(event("Hello", reason="stop", usage=None), data({"choices": [], "usage": usage}), DONE)
    assert completion.texts == ["Hello"]
    assert completion.usage == Usage(2, 1, 3)


def test_usage_of_zero_in_every_chunk_does_not_hide_the_real_one():
    """Servers that send 0/0/0 with every chunk send the count once."""
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    real = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    pieces = [event("Hel", usage=zero), event("lo", usage=real), event(reason="stop", usage=zero), DONE]
    assert read(*pieces).usage == Usage(2, 1, 3)


def test_interleaved_choices_are_told_apart_by_index():
    """Chunks of different choices may come in any order."""
    pieces = [event("b", index=1), event("a", index=0), event("B", index=1, reason="stop"), event("A", reason="stop")]
    assert read(*pieces, DONE).texts == ["aA", "bB"]


def test_an_index_that_counts_chunks_is_no_choice(server):
    """Where one choice was asked for, a server that numbers its chunks still gives one text."""
    server.scripts = [stream([event("Hel", index=0), event("lo", index=1), event(reason="stop", index=2), DONE])]
    with server.client() as client:
        assert client.complete("Say hello", stream=True).texts == ["Hello"]


@pytest.mark.parametrize("index", [{"index": 0}, {"index": None}, {}], ids=["0", "null", "missing"])
def test_one_index_for_two_prompts_mixes_no_texts(server, index):
    """Two choices of a whole answer stay two, even under one index."""
    choices = [{"text": text, "finish_reason": "stop", **index} for text in ("one", "two")]
    server.scripts = [answer({"choices": choices})]
    with server.client() as client:
        assert client.complete(["first", "second"]).texts == ["one", "two"]


def test_an_ignored_n_is_said(server):
    """Three choices asked for and one given: the record says so."""
    server.scripts = [answer(whole())]
    with server.client() as client:
        completion = client.complete("Say hello", n=3)
    assert "asked for 3 choices, got 1" in record(completion)["text/plain"]


def test_nan_and_infinity_are_read():
    """Log-probabilities of NaN and -Infinity, which JSON does not know, cost nothing."""
    body = b'{"choices": [{"text": "Hello", "logprobs": {"tokens": ["Hello"], "token_logprobs": [-Infinity], '
    completion = read(data(body + b'"top_logprobs": [{"Hello": NaN}], "text_offset": [0]}}]}'), DONE)
    assert completion.text == "Hello"
    assert completion.choices[0].logprobs.token_logprobs == [float("-inf")]


def test_bytes_that_are_not_utf8_become_replacement_characters():
    """A broken byte inside a text costs that byte and nothing around it."""
    assert read(data(b'{"choices": [{"text": "He\xffllo"}]}'), DONE).text == "He\ufffdllo"


# -- halves of surrogate pairs -----------------------------------------------------------------------------------------


def halves(text):
    """Return `text` as JSON escapes, one a UTF-16 code unit."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def half_events(*texts):
    """Return an event for each of `texts`, written as escapes so that halves of pairs can travel."""
    return [data(b'{"choices": [{"text": "' + text.encode() + b'", "index": 0}]}') for text in texts]


def test_a_pair_that_is_split_across_chunks_is_joined():
    """A character sent in two halves arrives as one, whichever chunk shows it."""
    assert read(*half_events("a\\ud83c", "\\udf88b"), DONE).text == "a🎈b"


def test_a_half_waits_over_a_chunk_without_text():
    """A chunk without text between the two halves does not part them."""
    assert read(*half_events("\\ud83c", "", "\\udf88"), DONE).text == "🎈"


def test_halves_of_different_choices_do_not_meet():
    """Each choice joins its own halves."""
    pieces = [
        data(b'{"choices": [{"text": "\\ud83c", "index": 0}]}'),
        data(b'{"choices": [{"text": "\\udf88", "index": 1}]}'),
        data(b'{"choices": [{"text": "\\udf88", "index": 0}]}'),
    ]
    assert read(*pieces, DONE).texts == ["🎈", "\ufffd"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a\\udf88b"], "a\ufffdb"),
        (["a\\ud83cb"], "a\ufffdb"),
        (["a\\ud83c", "b"], "a\ufffdb"),
        (["a\\ud83c", "b", "\\udf88c"], "a\ufffdb\ufffdc"),
        (["a\\ud83c"], "a\ufffd"),
        (["a\\ud83c", "\\ud83c\\udf88"], "a\ufffd🎈"),
    ],
)
def test_a_half_that_stays_alone_becomes_a_replacement_character(texts, expected):
    """A lone half is U+FFFD in its place: not dropped, not joined with a later one."""
    assert read(*half_events(*texts), DONE).text == expected


def test_a_half_before_the_finish_is_kept():
    """A finish_reason in a chunk of its own does not swallow the half before it."""
    assert read(*half_events("a\\ud83c"), event(reason="length"), DONE).text == "a\ufffd"


@relaxed
@given(st.text(st.characters() | st.sampled_from("🎈\ud83c\udf88"), max_size=6), st.lists(st.integers(0, 72)))
def test_however_a_text_is_cut_into_halves_it_arrives_whole_and_encodable(text, cuts):
    """Pairs are joined, lone halves become U+FFFD, and no cut between code units changes that."""
    pair, lone = re.compile("[\ud800-\udbff][\udc00-\udfff]"), re.compile("[\ud800-\udfff]")
    joined = pair.sub(lambda match: match[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    written = halves(text)
    edges = [0, *sorted(cut // 6 * 6 for cut in cuts), len(written)]
    pieces = half_events(*(written[start:end] for start, end in itertools.pairwise(edges)))
    assert read(*pieces, DONE).text == lone.sub("\ufffd", joined)


# -- failures ----------------------------------------------------------------------------------------------------------

REFUSALS = {
    "an object": {"error": {"message": "out of memory", "type": "server_error", "code": 500}},
    "a null code": {"error": {"message": "out of memory", "type": None, "param": None, "code": None}},
    "a text code": {"error": {"message": "out of memory", "code": "oom"}},
    "beside choices": {"error": {"message": "out of memory"}, "choices": [{"text": "", "finish_reason": "error"}]},
    "a text": {"error": "out of memory"},
    "an error object": {"object": "error", "message": "out of memory", "code": 50000},
    "a detail": {"detail": "out of memory"},
    "a list of details": {"detail": [{"loc": ["body", "n"], "msg": "out of memory", "type": "x"}]},
    "a message": {"message": "out of memory"},
    "only a code": {"error": {"code": "out of memory"}},
}


@pytest.mark.parametrize("payload", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("form", [data, lambda payload: json.dumps(payload).encode()], ids=["stream", "whole"])
def test_an_error_inside_a_success_is_an_error(form, payload):
    """Every shape of error in a 200 answer raises AnswerError with what the server said."""
    with pytest.raises(AnswerError, match="out of memory") as caught:
        chunks([form(payload)])
    assert caught.value.kind == "api"


@pytest.mark.parametrize("payload", REFUSALS.values(), ids=REFUSALS)
def test_an_error_in_the_middle_of_a_stream_comes_after_the_text_before_it(payload):
    """What came before the error is handed on first."""
    reading = AnswerReader().chunks([event("Hel") + data(payload)])
    assert next(reading).text == "Hel"
    with pytest.raises(AnswerError, match="out of memory"):
        next(reading)


@pytest.mark.parametrize("said", ["two\nlines", "red \x1b[31m", "\u202eback", "bell \x07", "half \ud83c"])
def test_what_a_server_says_of_an_error_cannot_drive_a_terminal(said):
    """The message of an AnswerError is one line of inert text that can be encoded."""
    with pytest.raises(AnswerError) as caught:
        chunks([data({"error": {"message": said}})])
    assert inert(caught.value.message) == caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.message.encode()


BROKEN = {
    "HTML": (b"<!DOCTYPE html><title>Welcome</title>", DecodeError, "HTML page.*base URL"),
    "HTML after blanks": (b"\r\n \n<html>", DecodeError, "HTML page"),
    "plain text": (b"upstream connect error", DecodeError, "not JSON"),
    "JSON that is cut": (whole()[:-9], DecodeError, "not JSON"),
    "two JSON objects": (whole() + whole(), DecodeError, "not JSON"),
    "a JSON text": (b'"Hello"', DecodeError, "no completion"),
    "a JSON list": (b"[{}]", DecodeError, "no completion"),
    "JSON without choices": (b'{"id": "cmpl-1"}', DecodeError, "without choices"),
    "an empty object": (b"{}", DecodeError, "without choices"),
    "no choice": (b'{"choices": []}', DecodeError, "without any choice"),
    "choices of another shape": (b'{"choices": ["Hello"]}', DecodeError, "choices"),
    "an event that is no JSON": (data(b"Hello"), DecodeError, "not JSON"),
    "an event that is HTML": (data(b"<html>"), DecodeError, "not JSON"),
    "deep nesting": (b"[" * 100_000, DecodeError, "not JSON"),
    "deep nesting in an event": (data(b'{"choices": ' + b"[" * 100_000), DecodeError, "not JSON"),
    "nothing": (b"", StreamError, "empty answer"),
    "blanks": (b" \r\n\r\n", StreamError, "empty answer"),
    "a stream with [DONE] alone": (DONE, DecodeError, "without any choice"),
    "a stream with usage alone": (data({"choices": [], "usage": {}}) + DONE, DecodeError, "without any choice"),
    "a stream that is cut": (event("Hel"), StreamError, "cut the answer off"),
    "a stream that is cut in an event": (event("Hel") + event("lo")[:30], DecodeError, "not JSON"),
    "a stream that is cut in one choice": (event("a", reason="stop") + event("b", index=1), StreamError, "cut"),
}


@pytest.mark.parametrize(("body", "error", "words"), BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_none_is_an_error_in_words(body, error, words):
    """What is not a completion, or not a whole one, is one documented failure with a short message."""
    with pytest.raises(error, match=words) as caught:
        read(body)
    assert type(caught.value) is error
    assert len(caught.value.message) < 400


@relaxed
@given(st.binary() | st.text().map(str.encode), st.sampled_from([b"", b"data: ", b"{", b"\xef\xbb\xbf"]))
def test_no_bytes_raise_anything_but_our_own_errors(body, start):
    """Any bytes at all end in a completion or in a CompletionsError."""
    with contextlib.suppress(CompletionsError):
        assert read(start + body).choices


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters() | st.sampled_from("\ud83c\udf88")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def objects(*names, **parts):
    """Return a strategy of objects with any of these fields: anything at all, or what `parts` says."""
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(names, values), **parts})


logprobs = objects("tokens", "token_logprobs", "top_logprobs", "text_offset")
choices = objects("text", "index", "finish_reason", "extra", logprobs=values | logprobs)
usages = objects("prompt_tokens", "completion_tokens", "total_tokens")
answers = objects(
    *("id", "object", "created", "model", "system_fingerprint", "extra"),
    choices=st.lists(choices, min_size=1, max_size=3),
    usage=values | usages,
)


@relaxed
@given(st.lists(answers, min_size=1, max_size=3))
def test_no_value_in_any_field_raises_anything_but_our_own_errors(payloads):
    """Fields of any type end in a CompletionsError, or in a completion that can be shown, written and encoded."""
    with contextlib.suppress(CompletionsError):
        completion = read(*(data(payload) for payload in payloads), DONE)
        assert all(text.encode() for text in record(completion).values())
        assert Completion.from_dict(completion.to_dict()).texts == completion.texts
        json.dumps(completion.to_dict()).encode()


def test_an_answer_without_end_is_refused_at_the_limit():
    """A JSON object that does not end is given up at the limit, and the rest is not asked for."""
    pieces = iter([b'{"choices": "', *[b"x" * 2**20] * (ANSWER_LIMIT // 2**20 + 50)])
    with pytest.raises(TooLargeError):
        chunks(pieces)
    assert len(list(pieces)) > 40


def test_an_event_without_end_is_refused_at_the_limit():
    """An event that does not end is given up at the limit, and the rest is not asked for."""
    pieces = iter([b"data: ", *[b"x" * 2**20] * (EVENT_LIMIT // 2**20 + 50)])
    with pytest.raises(TooLargeError):
        chunks(pieces)
    assert len(list(pieces)) > 40


@pytest.mark.parametrize("blank", [b"\n", b": keep-alive\n\n", b"data:\n\n"], ids=["blank", "comment", "empty event"])
def test_what_keeps_an_answer_alive_takes_no_memory(blank):
    """Blanks, comments and empty events before the text are not collected."""
    pieces = [blank * (4096 // len(blank))] * 400
    tracemalloc.start()
    try:
        assert read(*pieces, event("Hello", reason="stop")).text == "Hello"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


# -- the key -----------------------------------------------------------------------------------------------------------


def shows(key, text):
    """Say whether any ten characters of `key` are in `text`."""
    return any(key[at : at + 10] in text for at in range(len(key) - 9))


ECHOES = {
    "whole": KEY,
    "URL-quoted": quote(KEY, safe=""),
    "HTML-quoted": escape(KEY),
    "without its end": KEY[:-1],
    "without its start": KEY[3:],
    "ten characters": KEY[3:13],
    "twice": f"{KEY}, {KEY}",
    "between letters": f"x{KEY}y",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("form", ["stream", "whole"])
def test_a_key_that_the_server_echoes_is_masked_in_the_completion(form, echo):
    """No ten characters of the key are in the text or in any other field, and the rest of the text stays."""
    said = f"You sent {echo}, thanks."
    token = {"tokens": [echo], "token_logprobs": [-1], "top_logprobs": [{echo: -1}], "text_offset": [0]}
    choice = {"text": said, "index": 0, "logprobs": token, "finish_reason": "stop", "note": {echo: [echo]}}
    payload = {"id": echo, "model": echo, "choices": [choice], "headers": {"authorization": f"Bearer {echo}"}}
    body = json.dumps(payload).encode() if form == "whole" else data(payload) + DONE
    completion = read(body, key=ApiKey(KEY))
    assert not shows(KEY, json.dumps(completion.to_dict()))
    assert completion.text.startswith("You sent ")
    assert completion.text.endswith(", thanks.")


def test_a_key_that_json_escapes_is_masked_too():
    """Quotes and backslashes in a key do not hide it from the mask."""
    key = 'sk-"01234\\56789"abcdef'
    assert not shows(key, read(whole(f"You sent {key}."), key=ApiKey(key)).text)


@pytest.mark.parametrize("key", ["x", "1", "text", "index", "choices", "stop", "EMPTY", "none"])
def test_a_placeholder_for_a_key_breaks_no_answer(key):
    """Local servers take any word as a key: one that is part of JSON's own words changes nothing."""
    body = b'{"choices": [{"text": "Hello", "index": 1, "finish_reason": null}], "created": 11, "usage": null}'
    completion = read(body, key=ApiKey(key))
    assert [(choice.text, choice.index, choice.finish_reason) for choice in completion.choices] == [("Hello", 1, None)]
    assert completion.created == 11


# -- the body of an error ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no such model", "type": "x", "param": null, "code": 404}}', "no such model"),
        (b'{"error": {"message": "too big", "param": "n", "code": null}}', "too big (n)"),
        (b'{"error": {"message": "n is too big", "param": "n"}}', "n is too big"),
        (b'{"error": {"code": "oom"}}', "oom"),
        (b'{"error": {}}', "no message"),
        (b'{"error": "text"}', "text"),
        (b'{"object": "error", "message": "no such model", "code": 40401}', "no such model"),
        (b'{"object": "error", "code": 40401}', "no message"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": ["body", "n"], "msg": "too big"}]}', "n: too big"),
        (b'{"detail": [{"loc": ["body", "stop", 0], "msg": "no"}, {"loc": [], "msg": "and"}]}', "stop.0: no; and"),
        (b'{"detail": [{"loc": null, "msg": "too big"}]}', "too big"),
        (b'{"detail": [{"loc": "n", "msg": "too big"}]}', "too big"),
        (b'{"message": "no route"}', "no route"),
        (b'{"other": 1}', '{"other": 1}'),
        (b"upstream\r\n  connect error", "upstream connect error"),
        (b"<html><head><TITLE>502\nBad Gateway</TITLE></head>", "an HTML page, '502 Bad Gateway'"),
        (b"<html>", "an HTML page"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_an_error_is_described_in_the_servers_words(body, said):
    """JSON in every shape, HTML and plain text come down to the one message in them."""
    assert said in describe_error(body, "")
    assert len(describe_error(body, "")) <= len(said) + 3


@pytest.mark.parametrize("form", [b"%s", b'{"error": "%s"}', b"<title>%s</title>"])
def test_a_long_error_is_cut(form):
    """What is said of an error has five hundred characters at most, and shows that there was more."""
    described = describe_error(form % (b"x " * 9999), "")
    assert len(described) == 500
    assert described.endswith("…")


def test_html_is_known_by_its_content_type_too():
    """A page that does not begin with a tag is a page all the same."""
    assert describe_error(b"Oops <title>Down</title>", "text/html; charset=utf-8") == "an HTML page, 'Down'"


@pytest.mark.parametrize("said", ["red \x1b[31m", "\u202eback", "bell \x07", "half \ud83c", "C1 \x9b31m"])
@pytest.mark.parametrize("form", ['{"error": {"message": %s}}', '{"error": %s}', "%s", "<title>%s</title>"])
def test_a_described_error_is_inert(form, said):
    """Nothing in the body of an error drives a terminal, reorders a line or cannot be encoded."""
    body = form % (json.dumps(said) if "error" in form else said)
    described = describe_error(body.encode("utf-8", "surrogatepass"), "")
    assert described
    assert inert(described) == described


@relaxed
@given(st.binary() | st.text().map(str.encode) | objects("error", "detail", "message", "object").map(json.dumps))
def test_any_body_of_an_error_is_described_on_one_short_line(body):
    """Whatever a server sends with an error status, what is said of it is one line that can be encoded."""
    described = describe_error(body if isinstance(body, bytes) else body.encode(), "")
    assert len(described) <= 500
    assert len(described.splitlines()) <= 1
    described.encode()
