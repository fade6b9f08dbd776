"""A key shows itself to nobody but the request that it is for."""

import base64
import contextlib
import copy
import json
import logging
import pickle
import pprint
import re
import string
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape, unescape
from urllib.parse import quote

import msgspec
import pytest
from conftest import DONE, HELLO, answer, event, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.lib.pretty import pretty
from traitlets.config import Config

from completions_magic import Client, Completion, Profile
from completions_magic.answer import AnswerReader
from completions_magic.errors import CompletionsError, ProfileError, PromptError
from completions_magic.key import MASK, ApiKey

relaxed = settings(deadline=None)

KEY = "sk-0123456789+abcdefghij/klmnopqrst="


def shows(text, key=KEY):
    """Say whether any ten characters of `key` are in `text`."""
    return any(key[at : at + 10] in text for at in range(len(key) - 9))


@pytest.fixture
def shell():
    """Return an IPython shell that writes no history."""
    return InteractiveShell(config=Config(HistoryManager={"enabled": False}))


# -- the object --------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """Something that holds a key, as a person's own class may."""

    key: ApiKey


def traced(key):
    """Return a traceback that shows the local variables of a frame with the key in it."""
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


WAYS = {
    "repr": repr,
    "str": str,
    "f-string": lambda key: f"{key} {key!s} {key!r} {key!a} {key:>40} {key:s}",
    "format": lambda key: format(key, "^40") + "{} {k!r}".format(key, k=key),  # noqa: UP032  # another way in
    "percent": lambda key: "%s %r %a" % (key, key, key),  # noqa: UP031  # the old way has to hold too
    "list": lambda key: str([key, {key: key}]),
    "dataclass": lambda key: repr(Settings(key)),
    "pprint": pprint.pformat,
    "IPython": pretty,
    "copy": lambda key: repr(copy.copy(key)),
    "deepcopy": lambda key: repr(copy.deepcopy({"key": key})),
    "bytes": lambda key: str(key).encode().hex(),
    "dir": lambda key: " ".join(dir(key)),
    "logging": lambda key: logging.LogRecord("x", 10, "x", 1, "%s %r", (key, key), None).getMessage(),
    "traceback": traced,
    "JSON with a default": lambda key: json.dumps({"key": key}, default=str),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_way_of_writing_a_key_shows_it(way):
    """Repr, str, formats, containers, copies, logs and tracebacks show nothing of the key."""
    written = way(ApiKey(KEY))
    assert written
    assert not shows(written)
    assert KEY[:3] not in written


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda key: copy.deepcopy([key])[0]])
def test_a_copy_of_a_key_is_the_key(copied):
    """A copy works as the key does."""
    assert copied(ApiKey(KEY)).reveal() == KEY


def test_a_key_has_no_variables_to_look_at():
    """`vars` of a key is an error, not its value."""
    with pytest.raises(TypeError):
        vars(ApiKey(KEY))


@pytest.mark.parametrize(
    "write", [json.dumps, msgspec.json.encode, msgspec.to_builtins, lambda key: json.dumps(key, default=vars)]
)
def test_a_key_is_not_written_as_json(write):
    """JSON of a key is an error without the key."""
    with pytest.raises(TypeError) as caught:
        write(ApiKey(KEY))
    assert not shows(str(caught.value))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("held", [lambda key: key, lambda key: [key], Settings])
def test_a_key_is_not_pickled(held, protocol):
    """Pickling a key, or what holds one, raises; the message is without the key."""
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(held(ApiKey(KEY)), protocol)
    assert not shows(str(caught.value))


def test_keys_compare_by_value_and_with_keys_only():
    """Two keys of one value are one key in a dictionary; the text itself is another thing."""
    assert {ApiKey(KEY): 1}[ApiKey(f" {KEY}\n")] == 1
    assert ApiKey(KEY) != ApiKey(KEY + "x")
    assert ApiKey(KEY) != KEY


def test_a_verbose_traceback_shows_no_key(shell, capsys):
    """`%xmode Verbose` prints the variables of every frame: the key among them as a mask."""
    shell.push({"key": ApiKey(KEY)})
    shell.run_line_magic("xmode", "Verbose")
    shell.run_cell("def call(inner):\n    raise ValueError(inner)\n\ncall(key)")
    printed = capsys.readouterr().out
    assert "inner" in printed
    assert "ApiKey(…)" in printed
    assert not shows(printed)


def test_a_verbose_traceback_of_a_refusal_shows_no_key(shell, capsys):
    """Where a key is refused, its text is in no frame that a person sees."""
    shell.push({"text": f"{KEY} {KEY}", "ApiKey": ApiKey})
    shell.run_line_magic("xmode", "Verbose")
    shell.run_cell("ApiKey(text)")
    printed = capsys.readouterr().out
    assert "ProfileError" in printed
    assert not shows(printed)


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["\n{}", "{}\n", "{}\r\n", "  {}\t", "\u00a0{}\u2003", "\n\n{}\n\n"])
def test_blanks_and_line_ends_around_a_key_are_dropped(around):
    """What copying and files put around a key is no part of it."""
    assert ApiKey(around.format(KEY)).reveal() == KEY


REFUSED = {
    "a blank inside": f"{KEY[:9]} {KEY[9:]}",
    "a line end inside": f"{KEY}\n{KEY}",
    "a carriage return inside": f"{KEY}\r{KEY}",
    "a tab inside": f"{KEY[:9]}\t{KEY[9:]}",
    "a header's end inside": f"{KEY}\r\nX-Other: 1",
    "smart quotes": f"“{KEY}”",
    "smart single quotes": f"\u2018{KEY}\u2019",
    "quotes": f'"{KEY}"',
    "single quotes": f"'{KEY}'",
    "a word before it": f"Bearer {KEY}",
    "a byte order mark": f"\ufeff{KEY}",
    "a zero-width blank": f"{KEY[:9]}\u200b{KEY[9:]}",
    "a long dash": KEY.replace("-", "\u2013"),
    "a NUL": f"{KEY}\x00",
    "a letter with an accent": f"{KEY}é",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_key_is_refused_without_showing_it(value):
    """The message says where the key comes from and what is wrong; neither it nor a frame of ours holds the key."""
    with pytest.raises(ProfileError, match=r"the key in OPENAI_API_KEY .*copy it again") as caught:
        ApiKey(value, origin="the key in OPENAI_API_KEY")
    assert not shows(str(caught.value))
    assert not shows(repr(caught.value.__context__))
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    own = [frame.f_locals for frame in frames if frame.f_globals["__name__"].startswith("completions_magic.")]
    assert own
    assert not shows(repr(own))


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
def test_an_empty_key_is_refused(value):
    """Blanks alone are no key."""
    with pytest.raises(ProfileError, match="the key is empty"):
        ApiKey(value)


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_a_refused_key_stops_everything_before_it_is_sent(server, value):
    """A client is not even made with such a key: the server hears nothing."""
    with pytest.raises(ProfileError):
        server.client(api_key=value)
    assert server.heard == []


def test_a_refused_key_of_the_environment_stops_everything_before_it_is_sent(server, monkeypatch):
    """The message names the variable to mend, and not what is in it."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", f"“{KEY}”")
    with pytest.raises(ProfileError, match="OPENAI_API_KEY") as caught:
        Client(model="m").complete("Say hello")
    assert not shows(str(caught.value))
    assert server.heard == []


def test_the_key_is_sent_as_a_bearer_token_without_the_blanks_around_it(server):
    """What arrives at the server is the key itself."""
    server.scripts = [stream([event("Hello", reason="stop"), DONE])]
    with server.client(api_key=f"\n {KEY} \n") as client:
        client.complete("Say hello")
    assert server.heard[0].headers["authorization"] == f"Bearer {KEY}"


# -- the mask ----------------------------------------------------------------------------------------------------------


def decoded(text):
    """Yield what the base64 in a text says, wherever it begins."""
    for word in re.findall(r"[\w+/-]{6,}", text):
        for start in range(4):
            coded = word[start:].replace("-", "+").replace("_", "/")
            yield base64.b64decode(coded[: len(coded) // 4 * 4]).decode("latin-1")


SPELLINGS = {
    "itself": str,
    "URL-quoted": lambda key: quote(key, safe=""),
    "URL-quoted but for slashes": quote,
    "URL-quoted in small letters": lambda key: quote(key, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "JSON": json.dumps,
    "JSON with escaped slashes": lambda key: json.dumps(key).replace("/", "\\/"),
    "HTML": escape,
    "in capitals of a header": lambda key: f"Authorization: Bearer {key}",
    **{
        f"base64, {ahead} ahead": lambda key, ahead=ahead: base64.b64encode(f"{'x' * ahead}{key}yy".encode()).decode()
        for ahead in range(6)
    },
    "base64 of URLs": lambda key: base64.urlsafe_b64encode(f"Bearer {key}".encode()).decode(),
}


@pytest.mark.parametrize("key", [KEY, "sk-\"0123\\456789&abcdef<ghijkl>mnopqr'st"], ids=["usual", "with signs"])
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_a_key_is_masked(key, spell):
    """The key as it is, in JSON, in HTML and in a URL is replaced, and the text around it stays."""
    scrubbed = ApiKey(key).scrub(f"before {spell(key)} after")
    assert scrubbed.startswith("before ")
    assert scrubbed.endswith(" after")
    assert MASK in scrubbed
    assert not shows(scrubbed, key)
    assert not any(shows(spelling, key) for spelling in decoded(scrubbed))
    assert len(scrubbed) < len("before  after") + len("Authorization: Bearer ") + 40


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (KEY, MASK),
        (KEY[:-1], MASK),
        (KEY[1:], MASK),
        (KEY[5:15], MASK),
        (KEY[5:14], KEY[5:14]),
        (f"{KEY} and {KEY}", f"{MASK} and {MASK}"),
        (f"x{KEY[:20]}y", f"x{MASK}y"),
        (f"{KEY[:12]}…{KEY[-12:]}", f"{MASK}…{MASK}"),
        ("no key at all", "no key at all"),
        ("", ""),
    ],
)
def test_a_piece_of_ten_characters_is_masked_and_nothing_shorter(text, scrubbed):
    """Servers quote the start of a key: ten characters of it are masked, with no character beside them."""
    assert ApiKey(KEY).scrub(text) == scrubbed


signs = string.ascii_letters + string.digits + "-_.+/="
keys = st.text(signs, min_size=1, max_size=60)


@relaxed
@given(st.data(), keys)
def test_no_ten_characters_of_a_key_are_left(data, key):
    """Whatever pieces of a key a text is made of, none of ten characters is left."""
    places = st.integers(0, len(key))
    pieces = st.tuples(places, places).map(lambda ends: key[min(ends) : max(ends)])
    text = "".join(data.draw(st.lists(pieces | st.text(max_size=5) | st.just(key), max_size=8)))
    scrubbed = ApiKey(key).scrub(text)
    assert not shows(scrubbed, key)
    assert ApiKey(key).scrub(scrubbed) == scrubbed


@relaxed
@given(keys, st.text())
def test_a_text_without_the_key_is_left_alone(key, text):
    """Scrubbing changes nothing where there is nothing to hide."""
    if key not in text:
        assert ApiKey(key).scrub(text) == text


# -- echoes, over a socket ---------------------------------------------------------------------------------------------

QUOTED = quote(KEY, safe="")
ECHOES = {
    "JSON": answer({"error": {"message": f"Incorrect API key provided: {KEY}."}}, status="401 Unauthorized"),
    "JSON, in part": answer({"error": f"Incorrect API key provided: {KEY[:14]}..."}, status="401 Unauthorized"),
    "HTML": answer(f"<title>{escape(KEY)} is wrong</title>".encode(), status="403 Forbidden", kind="text/html"),
    "plain text": answer(f"who is {KEY}?".encode(), status="500 Oops", kind="text/plain"),
    "a reason phrase": answer(b"", status=f"401 Wrong {KEY}"),
    "a redirect": answer(b"", status="302 Found", headers=f"Location: https://example.org/?key={QUOTED}\r\n"),
    "a request id": answer({"error": "no"}, status="400 Bad Request", headers=f"X-Request-Id: {KEY}\r\n"),
    "an error in a 200": answer({"error": {"message": f"bad key {KEY}"}}),
    "an error in a stream": stream([event("Hel"), b'data: {"error": "bad key ' + KEY.encode() + b'"}\n\n']),
    "no JSON": answer(f"bad key {KEY}".encode()),
    "JSON that is no completion": answer({"key": KEY}),
    "an event that is no JSON": stream([f"data: bad key {KEY}\n\n".encode()]),
    "a header that is none": f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(),
    "no HTTP": f"{KEY}\r\n\r\n".encode(),
}


@pytest.mark.parametrize("script", ECHOES.values(), ids=ECHOES)
def test_a_key_that_comes_back_in_a_failure_is_masked(server, script):
    """No ten characters of it are in the error, in what is raised with it, or in its fields."""
    server.scripts = [script]
    with server.client(api_key=KEY, retries=0) as client, pytest.raises(CompletionsError) as caught:
        client.complete("Say hello")
    error = caught.value
    seen = [str(error), repr(error), repr(vars(error)), *error._render_traceback_()]
    assert not shows(" ".join(seen))
    assert not shows("".join(traceback.format_exception(error)))


@pytest.mark.parametrize("form", ["stream", "whole"])
def test_a_key_that_comes_back_as_text_is_masked(server, form):
    """A server that answers with its request's headers tells nobody."""
    said = f"Authorization: Bearer {KEY}"
    if form == "stream":
        server.scripts = [stream([event(said, reason="stop"), DONE])]
    else:
        server.scripts = [answer({"choices": [{"text": said, "finish_reason": "stop"}], "echo": said})]
    with server.client(api_key=KEY) as client:
        completion = client.complete("Say hello")
    assert completion.text == f"Authorization: Bearer {MASK}"
    assert not shows(repr(completion.to_dict()))


def chunks_of(texts, *, done=True):
    """Return the texts of the chunks that come of a stream of these texts, as a person sees them."""
    events = [event(text) for text in texts] + [DONE] * done
    chunks = AnswerReader(ApiKey(KEY)).chunks(iter(events))
    return ["".join(choice.text for choice in chunk.choices) for chunk in chunks]


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize("spell", [str, lambda key: quote(key, safe="")], ids=["itself", "URL-quoted"])
def test_a_key_in_tiny_pieces_is_masked_while_it_comes(size, spell):
    """However small the chunks are, no five characters of the key are seen, and the text around it is whole."""
    said = f"your key is {spell(KEY)}, or so."
    seen = "".join(chunks_of([said[at : at + size] for at in range(0, len(said), size)]))
    assert not any(spell(KEY)[at : at + 5] in seen for at in range(len(spell(KEY)) - 4))
    assert seen.startswith("your key is ")
    assert seen.endswith(", or so.")


def test_what_was_masked_is_seen_to_be():
    """A mask stands once in the place of a piece, also where its first characters had been shown."""
    assert chunks_of([KEY[:4], KEY[4:9], KEY[9:20], KEY[20:], " b"]) == [KEY[:4], "", MASK, "", " b"]
    assert "".join(chunks_of([f"a {KEY} b {KEY[:3]}", KEY[3:], "!"])) == f"a {MASK} b {KEY[:3]}{MASK}!"


@pytest.mark.parametrize("done", [True, False], ids=["done", "cut"])
def test_a_beginning_that_does_not_go_on_is_shown(done):
    """What may begin a key waits for the next chunk, and comes with it, or at the end."""
    assert chunks_of(["a sk-01", "2 b"]) == ["a ", "sk-012 b"]
    assert chunks_of(["a sk-012", "345"], done=done) == ["a ", "", "sk-012345"]
    assert chunks_of(["a sk-0"]) == ["a sk-0"]
    assert chunks_of(["s", "k-0", " b"]) == ["s", "k-0", " b"]


def test_a_beginning_comes_before_the_failure_that_ends_the_stream(server):
    """What waited is part of what had arrived."""
    server.scripts = [stream([event("a sk-012"), b'data: {"error": "no"}\n\n'])]
    with server.client(api_key=KEY, retries=0) as client, pytest.raises(CompletionsError) as caught:
        list(client.stream("Say hello"))
    assert caught.value.partial.text == "a sk-012"


pieces = st.lists(st.sampled_from([KEY[:4], KEY[:7], KEY[5:13], KEY[:9], " ", "sk-", "ab", "="]), max_size=12)


@relaxed
@given(pieces)
def test_waiting_loses_nothing(texts):
    """Where no ten characters of the key come, the sum of the chunks is what was sent."""
    said = "".join(texts)
    seen = "".join(chunks_of(texts))
    assert not shows(seen)
    assert shows(said) or seen == said


# -- tokens that spell the key together --------------------------------------------------------------------------------


def cut(said, size):
    """Return a text in pieces of `size` characters."""
    return [said[at : at + size] for at in range(0, len(said), size)]


def logprobs_of(tokens):
    """Return log-probabilities of tokens, with an alternative each."""
    return {
        "tokens": tokens,
        "token_logprobs": [-float(place) for place in range(len(tokens))],
        "top_logprobs": [{token: -1.0, "other": -2.0} for token in tokens],
        "text_offset": list(range(len(tokens))),
    }


def token_event(tokens, text=None, reason=None):
    """Return an event with these tokens."""
    choice = {"text": "".join(tokens) if text is None else text, "index": 0, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [{**choice, "logprobs": logprobs_of(tokens)}]}).encode() + b"\n\n"


def each_in_an_event(tokens):
    """Stream a token an event, each an HTTP chunk of its own."""
    return stream([*(token_event([token]) for token in tokens), event(reason="stop"), DONE])


def all_in_one_read(tokens):
    """Stream a token an event, all of them in one HTTP chunk."""
    return stream([b"".join([*(token_event([token]) for token in tokens), event(reason="stop"), DONE])])


def three_in_an_event(tokens):
    """Stream several tokens an event."""
    return stream([*(token_event(tokens[at : at + 3]) for at in range(0, len(tokens), 3)), event(reason="stop"), DONE])


def without_text(tokens):
    """Stream tokens that make up another text than the one beside them."""
    return stream([*(token_event([token], "x") for token in tokens), event(reason="stop"), DONE])


def cut_off(tokens):
    """Stream a token an event, with neither finish_reason nor end."""
    return stream([token_event([token]) for token in tokens])


def whole(tokens):
    """Answer with all tokens in one JSON object."""
    choice = {"text": "".join(tokens), "index": 0, "finish_reason": "stop", "logprobs": logprobs_of(tokens)}
    return answer({"choices": [choice]})


def as_chat(tokens):
    """Answer with the tokens in the shape of chat completions, bytes and all."""
    entries = [{"token": token, "logprob": -1.0, "bytes": list(token.encode()), "top_logprobs": []} for token in tokens]
    choice = {"text": "x", "index": 0, "finish_reason": "stop", "logprobs": {"content": entries}}
    return answer({"choices": [choice]})


FORMS = [each_in_an_event, all_in_one_read, three_in_an_event, without_text, cut_off, whole]


def partial_of(stream):
    """Return the sum of a stream, whether it came to its end or not."""
    with contextlib.suppress(CompletionsError):
        list(stream)
    return stream.partial


def spelled(completion):
    """Return what the tokens of a completion spell, and what the likeliest of their alternatives do."""
    logprobs = completion.choices[0].logprobs
    return "".join(logprobs.tokens), "".join(next(iter(top), "") for top in logprobs.top_logprobs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 9, 12, 50])
@pytest.mark.parametrize("spell", [str, lambda key: quote(key, safe="")], ids=["itself", "URL-quoted"])
def test_tokens_that_spell_the_key_together_are_masked(server, form, size, spell):
    """However short each is; those around them stay, and the lists keep one length."""
    tokens = ["Your", " key: ", *cut(spell(KEY), size), ", or", " so."]
    server.scripts = [form(tokens)]
    with server.client(api_key=KEY, retries=0) as client:
        came = partial_of(client.send(client.request("Say", logprobs=1)))
    said, tops = spelled(came)
    assert not any(spell(KEY)[at : at + 5] in said + tops for at in range(len(spell(KEY)) - 4))
    assert re.sub(r"(?<=: ).{0,4}\[key\]", MASK, said) == f"Your key: {MASK}, or so."
    logprobs = came.choices[0].logprobs
    lists = [logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset]
    assert [len(values) for values in lists] == [len(tokens)] * 4
    assert logprobs.top_logprobs[0] == {"Your": -1.0, "other": -2.0}


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_chunks_of_tokens_show_no_more_than_their_sum(server, size):
    """What a program sees of each chunk as it comes holds no five characters of the key in a row."""
    server.scripts = [each_in_an_event(["a", *cut(KEY, size), "b"])]
    with server.client(api_key=KEY) as client:
        chunks = list(client.stream("Say"))
    seen = "".join(token for chunk in chunks for one in chunk.choices if one.logprobs for token in one.logprobs.tokens)
    assert seen in [f"a{KEY[:shown]}{MASK}b" for shown in range(5)]


def test_tokens_in_the_shape_of_chat_completions_are_masked_too(server):
    """They are kept as they came, without what spells the key, in letters or in bytes."""
    server.scripts = [as_chat(["a", *cut(KEY, 4), "b"])]
    with server.client(api_key=KEY) as client:
        entries = client.complete("Say", logprobs=1).choices[0].logprobs.extra["content"]
    assert "".join(entry["token"] for entry in entries) == f"a{MASK}b"
    assert bytes(byte for entry in entries for byte in entry.get("bytes", [])) == b"ab"


def summed(pieces):
    """Return the sum of what a reader makes of these pieces of a stream."""
    return Completion.sum(AnswerReader(ApiKey(KEY)).chunks(iter(pieces)))


@pytest.mark.parametrize("text", [None, "x"], ids=["their text", "another text"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "many at once"])
def test_tokens_that_are_read_fast_are_masked_too(text, size, together):
    """Events of the usual kind are decoded many at once: what they spell is looked at all the same."""
    first, *rest = [token_event([token], text) for token in ["a", "b", *cut(KEY, size), "c"]]
    said, tops = spelled(summed([first, b"".join(rest), DONE] if together else [first, *rest, DONE]))
    assert re.sub(r".{0,4}\[key\]", MASK, said.removeprefix("ab")) == f"{MASK}c"
    assert not shows(tops)


def test_tokens_that_wait_come_at_the_end():
    """What may have begun a key, and did not, is not lost, whatever the text beside it is."""
    came = summed([token_event(["a"], "x"), token_event(["b", KEY[:6]], "y")])
    assert (came.text, spelled(came)[0]) == ("xy", f"ab{KEY[:6]}")


parts = st.lists(
    st.sampled_from([KEY[:4], KEY[:7], KEY[5:13], KEY[:9], KEY[9:], " ", "sk-", "ab", "=", ""]), max_size=12
)


@relaxed
@given(parts, st.integers(1, 4))
def test_tokens_lose_nothing_and_show_no_piece(tokens, size):
    """Whatever tokens come in whatever chunks, their number stays, and where no key is spelled so do they."""
    events = [token_event(tokens[at : at + size]) for at in range(0, len(tokens), size)]
    came = summed([*events, event(reason="stop"), DONE])
    seen = came.choices[0].logprobs.tokens if came.choices[0].logprobs else []
    assert not shows("".join(seen))
    assert len(seen) == len(tokens)
    assert shows("".join(tokens)) or seen == tokens


def plain(html):
    """Return what a page shows, and its tooltips, without the tags between."""
    titles = "".join(title.partition(" ")[0] for title in re.findall(r'title="([^"]*)"', html))
    return unescape(re.sub(r"<[^>]*>", "", html)) + "\n" + unescape(titles)


def test_no_view_of_the_tokens_shows_the_key(server):
    """The heat map, the token view, the distribution and the frame of such an answer."""
    server.scripts = [each_in_an_event(["Hi ", *cut(KEY, 3), "!"])]
    with server.client(api_key=KEY) as client:
        came = client.complete("Say", stream=True, logprobs=1)
        bundles = [came._repr_mimebundle_()[0], came.tokens().tree._repr_mimebundle_()[0]]
        html = [plain(bundle["text/html"]) for bundle in bundles]
        state = "".join(came.distribution().get_state()["tokens"])
    assert all(MASK in page and not shows(page) for page in html)
    assert state == f"Hi {KEY[:3]}{MASK}!"


def test_an_answer_whose_tokens_spell_the_key_is_not_recorded(server, tmp_path):
    """Neither where its text does not say it."""
    server.scripts = [without_text(cut(KEY, 4)), HELLO]
    path = tmp_path / "tape.jsonl"
    with server.client(api_key=KEY, cassette=path) as client:
        assert client.complete("Say", stream=True).text == "x" * 9
        assert not path.exists() or path.read_text() == ""
        assert client.complete("Say", stream=True).text == "Hello"
    assert "Hel" in path.read_text()


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
def test_rows_whose_tokens_spell_the_key_are_masked(server, monkeypatch, workers):
    """In a batch, and in what an executor's workers send back."""
    server.scripts = [each_in_an_event(cut(KEY, 4))]
    monkeypatch.setenv("LAB_KEY", KEY)
    with Client(Profile("lab", server.base_url, "LAB_KEY", "m")) as client, ThreadPoolExecutor(1) as pool:
        batch = client.complete_many(["a", "b"], logprobs=1, executor=pool if workers else None)
    assert [spelled(row.completion) for row in batch] == [(KEY[:4] + MASK, KEY[:4] + MASK * 8)] * 2


# -- requests that hold the key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, 'sk-"0123\\456789abcdef'], ids=["usual", "with signs"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda client, key: client.complete(f"My key is {key}."),
        lambda client, key: client.complete(["fine", key]),
        lambda client, key: client.complete("Say hello", suffix=key),
        lambda client, key: client.complete("Say hello", stop=["END", f"{key}\n"]),
        lambda client, key: client.complete("Say hello", metadata={"k": [key]}),
    ],
    ids=["prompt", "list", "suffix", "stop", "other field"],
)
def test_a_request_that_holds_the_key_is_refused(server, ask, key):
    """A key in the prompt, or anywhere in the body, is an error and reaches no server."""
    server.scripts = [answer({"choices": []})]
    with server.client(api_key=key) as client, pytest.raises(PromptError, match="key") as caught:
        ask(client, key)
    assert not shows(str(caught.value), key)
    assert server.heard == []


@pytest.mark.parametrize("key", ["x", "m", "prompt", "model", "EMPTY"])
def test_a_placeholder_for_a_key_refuses_no_request(server, key):
    """Local servers take any word as a key: JSON's own words in the body do not hold it."""
    server.scripts = [answer({"choices": [{"text": "hello", "finish_reason": "stop"}]})]
    with server.client(api_key=key, model="tiny") as client:
        assert client.complete("Say hello").text == "hello"


def test_a_key_that_is_no_text_is_refused_unseen():
    """Bytes from a file are told as what they are, in one of our errors."""
    with pytest.raises(ProfileError) as caught:
        Client(api_key=b"sk-Zq7Xw9Rt2Lm4Kp8Vn3Bd6Hs1Wf5")
    assert str(caught.value) == "api_key takes the key as text, not bytes"
