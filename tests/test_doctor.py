"""The doctor asks an endpoint, writes what it found on a card, and later lines are told what is ignored."""

import json
import re
import signal
import stat
import subprocess
import sys
import threading
from html.parser import HTMLParser

import httpx
import pytest
from conftest import DONE, answer, event, eventually, stream

from completions_magic import Client, load_ipython_extension, unload_ipython_extension
from completions_magic.card import Card, Finding
from completions_magic.doctor import PROBES, examine
from completions_magic.local.app import App
from completions_magic.profiles import user_folder
from completions_magic.schema import CompletionRequest

KEY = "sk-Zq7Xw9Rt2Lm4Kp8Vn3Bd6Hs1Wf5"
NOBODY = "http://127.0.0.1:9/v1"
LINES = [line for probe in PROBES for line in probe.lines]


class Relay:
    """Makes a scripted server answer as the embedded endpoint does, but for one fault.

    `change` gets the body of a request and changes it, or returns what is answered in its place; `rewrite` gets
    the bytes of an answer.
    """

    def __init__(self, server, change=lambda _body: None, rewrite=lambda content: content):
        self._server = server
        self._change = change
        self._rewrite = rewrite
        self._endpoint = httpx.Client(transport=httpx.WSGITransport(App()), base_url="http://localhost")
        server.scripts = [self]

    def __call__(self, connection):
        """Answer a request."""
        heard = self._server.current
        body = heard.json if heard.body else {}
        said = self._change(body)
        if said is None:
            response = self._endpoint.request(heard.method, heard.path, json=body or None)
            status = f"{response.status_code} {response.reason_phrase}"
            content = self._rewrite(response.content)
            said = answer(content, status=status, kind=response.headers["content-type"])
        connection.sendall(said)


def without(*names, when=lambda _body: True):
    """Return a change that drops parameters, as a server does that ignores them."""

    def change(body):
        for name in names if when(body) else ():
            body.pop(name, None)

    return change


def refusing(when, status="400 Bad Request", said="no such thing"):
    """Return a change that refuses what `when` holds for."""
    return lambda body: answer({"error": {"message": said}}, status=status) if when(body) else None


def ignore_prompts(body):
    """Answer the first prompt only."""
    if isinstance(body.get("prompt"), list):
        body["prompt"] = body["prompt"][0]


def ignore_max_tokens(body):
    """Generate more than was asked for."""
    if isinstance(body.get("max_tokens"), int):
        body["max_tokens"] = 30


IGNORED = {
    "model list": lambda body: None if body else answer({"data": []}),
    "max_tokens": ignore_max_tokens,
    "stream": without("stream", "stream_options"),
    "usage in streams": without("stream_options"),
    "n": without("n"),
    "a list of prompts": ignore_prompts,
    "stop as text": without("stop", when=lambda body: isinstance(body.get("stop"), str)),
    "stop as a list": without("stop", when=lambda body: isinstance(body.get("stop"), list)),
    "suffix": without("suffix"),
    "echo": without("echo", when=lambda body: "stream" not in body),
    "echo in streams": without("echo", when=lambda body: "stream" in body),
    "logprobs": without("logprobs", when=lambda body: "stream" not in body),
    "logprobs in streams": without("logprobs", when=lambda body: "stream" in body),
    "echo with logprobs": without("logprobs", when=lambda body: "echo" in body),
    "seed": without("seed"),
    "errors": without("max_tokens", when=lambda body: body.get("max_tokens") == "many"),
}
STREAMED = ("[DONE]", "usage in streams", "echo in streams", "logprobs in streams")
ALSO = {
    "stream": dict.fromkeys(STREAMED, "unclear"),
    "echo": {"echo with logprobs": "ignored"},
    "logprobs": {"echo with logprobs": "ignored"},
}
"""What follows from an ignored parameter for other lines."""


def holding(name, kind=object):
    """Return what says whether a body has a parameter of this type."""
    return lambda body: isinstance(body.get(name), kind) and name in body


USING = {
    "stream": holding("stream"),
    "usage in streams": holding("stream_options"),
    "n": holding("n"),
    "a list of prompts": holding("prompt", list),
    "stop as text": holding("stop", str),
    "stop as a list": holding("stop", list),
    "suffix": holding("suffix"),
    "echo": lambda body: "echo" in body and not body.keys() & {"logprobs", "stream"},
    "echo in streams": lambda body: {"echo", "stream"} <= body.keys(),
    "logprobs": lambda body: "logprobs" in body and not body.keys() & {"echo", "stream"},
    "logprobs in streams": lambda body: {"logprobs", "stream"} <= body.keys(),
    "echo with logprobs": lambda body: "echo" in body and "logprobs" in body,
    "seed": holding("seed"),
}


def verdicts(card):
    """Return the lines that are not honoured, with their verdicts."""
    return {line.name: line.verdict for line in card.findings if line.verdict != "honoured"}


def examined(server, **settings):
    """Return the card of the scripted server."""
    with server.client(model="pocket", **settings) as client:
        return examine(client)


# -- what it finds -----------------------------------------------------------------------------------------------------


def test_the_embedded_endpoint_honours_everything():
    """Every line of its card is honoured, at no more than the price that was said."""
    with Client("local") as client:
        card = examine(client)
    assert [line.name for line in card.findings] == LINES
    assert verdicts(card) == {}
    assert 12 <= card.requests <= sum(probe.requests for probe in PROBES)
    assert 0 < card.tokens <= sum(probe.tokens for probe in PROBES)


def test_an_endpoint_over_a_socket_is_found_to_be_what_it_is(server):
    """The same answers over HTTP give the same card, and every request is as tiny as was said."""
    Relay(server)
    card = examined(server)
    assert verdicts(card) == {}
    assert len(server.heard) == card.requests
    sizes = [heard.json["max_tokens"] for heard in server.heard if heard.body]
    assert [size for size in sizes if size != "many" and size > 8] == []


@pytest.mark.parametrize("line", IGNORED)
def test_what_is_ignored_is_found(server, line):
    """A server that leaves out one thing has that line ignored, and no other but what follows from it."""
    Relay(server, IGNORED[line])
    card = examined(server)
    assert verdicts(card) == {line: "ignored", **ALSO.get(line, {})}
    assert card[line].detail


def test_a_seed_is_not_taken_for_honoured_where_stories_begin_alike(server):
    """A server that ignores the seed, and says the same up to temperature 1 anyway, is found to ignore it."""

    def change(body):
        body.pop("seed", None)
        if body.get("temperature") == 1:
            body["temperature"] = 0

    Relay(server, change)
    assert verdicts(examined(server)) == {"seed": "ignored"}


def test_a_text_that_ends_by_itself_is_no_stop_that_was_honoured(server):
    """Whatever it is asked, it says two letters and ends: nothing is known of what it does with stop."""
    server.scripts = [stream([event("a"), event("b", reason="stop"), DONE])]
    card = examined(server)
    assert [card[line].verdict for line in ("stop as text", "stop as a list")] == ["unclear", "unclear"]


def test_a_stream_without_its_end_is_found(server):
    """A server that never says [DONE] has that line ignored."""
    Relay(server, rewrite=lambda content: content.replace(b"data: [DONE]\n\n", b""))
    assert verdicts(examined(server)) == {"[DONE]": "ignored"}


def test_the_shape_of_logprobs_is_named(server):
    """Log-probabilities in the shape of chat completions are told from the API's own."""
    logprobs = {"content": [{"token": " a", "logprob": -1.0}]}
    choice = {"text": " a", "index": 0, "finish_reason": "length", "logprobs": logprobs}
    Relay(server, lambda body: answer({"choices": [choice]}) if holding("logprobs")(body) else None)
    assert "chat completions" in examined(server)["logprobs"].detail
    Relay(server)
    assert examined(server)["logprobs"].detail == "8 tokens, each with 2 of 2 alternatives"


@pytest.mark.parametrize(
    ("usage", "verdict", "detail"),
    [
        ({"prompt_tokens": 4, "completion_tokens": 8}, "honoured", "it comes when stream_options ask for it"),
        (
            {"prompt_tokens": 4, "completion_tokens": 3},
            "unclear",
            "it counts 4 + 3 tokens, and 4 + 8 tokens for the same text unstreamed",
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 8},
            "unclear",
            "it counts 9 + 8 tokens, and 4 + 8 tokens for the same text unstreamed",
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, "ignored", "it counts no tokens"),
    ],
)
def test_usage_that_counts_otherwise_in_a_stream_is_found(server, usage, verdict, detail):
    """A proxy that counts for itself is found out by what it counts where the same text is not streamed."""

    def rewrite(content):
        return re.sub(rb'"usage":\{[^}]*\}', b'"usage":' + json.dumps(usage).encode(), content)

    Relay(server, rewrite=lambda content: rewrite(content) if content.startswith(b"data:") else content)
    found = examined(server)["usage in streams"]
    assert (found.verdict, found.detail) == (verdict, detail)


def test_a_mistake_of_the_request_that_is_a_fault_of_the_server_is_found(server):
    """Who answers a wrong request with 500 is asked again and again, in whatever shape it says so."""
    error = {"error": {"message": "no", "type": "internal_server_error", "param": None, "code": None}}
    fallen = answer(error, status="500 Internal Server Error")
    Relay(server, lambda body: fallen if body.get("max_tokens") == "many" else None)
    found = examined(server)["errors"]
    assert found.verdict == "ignored"
    assert found.detail == "500, the API's error object, though the mistake is the request's"


@pytest.mark.parametrize("line", USING)
def test_what_is_refused_is_found_with_the_servers_words(server, line):
    """A 400 is one line of the card, with what the server said, and all other lines are found as ever."""
    Relay(server, refusing(USING[line], said=f"no {line}, please"))
    card = examined(server)
    also = {**dict.fromkeys(STREAMED, "refused"), "suffix": "unclear"} if line == "stream" else {}
    assert verdicts(card) == {line: "refused", **also}
    assert f"no {line}, please" in card[line].detail


@pytest.mark.parametrize("line", [line for line in USING if line != "usage in streams"])
def test_a_request_that_fails_is_a_line_and_not_the_end(server, line):
    """A server that falls over at one request has that line failed, and all others are found."""
    Relay(server, lambda body: b"" if USING[line](body) else None)
    card = examined(server)
    also = {**dict.fromkeys(STREAMED, "failed"), "suffix": "unclear"} if line == "stream" else {}
    assert verdicts(card) == {line: "failed", **also}


ERRORS = {
    "FastAPI": answer({"detail": [{"loc": ["body"], "msg": "no"}]}, status="422 Unprocessable Entity"),
    "plain text": answer(b"no", status="400 Bad Request", kind="text/plain"),
    "HTML": answer(b"<h1>no</h1>", status="400 Bad Request", kind="text/html"),
    "a text as error": answer({"error": "no"}, status="400 Bad Request"),
    "empty": answer(b"", status="500 Internal Server Error"),
}


@pytest.mark.parametrize("shape", ERRORS)
def test_the_shape_of_an_error_is_named(server, shape):
    """Another shape than the API's error object is said in words, with the status."""
    Relay(server, lambda body: ERRORS[shape] if body.get("max_tokens") == "many" else None)
    found = examined(server)["errors"]
    assert found.verdict == "ignored"
    assert re.match(r"(4|5)\d\d, ", found.detail)
    assert shape in found.detail


# -- an end in any case ------------------------------------------------------------------------------------------------


def test_where_nobody_listens_it_ends_at_once():
    """Two requests without a connection are enough, the rest is not asked, and nothing is kept."""
    with Client(base_url=NOBODY, model="m") as client:
        card = examine(client)
    assert card.requests == 2
    assert {line.verdict for line in card.findings} == {"failed", "unclear"}
    assert "the plain completion has failed" in card["stop as text"].detail
    assert Card.kept(NOBODY) is None


def test_a_server_that_never_answers_is_left_alone(server):
    """Every request has its time, and after two of them the rest is not asked."""
    server.scripts = [server.wait_until_gone]
    with server.client() as client:
        card = examine(client, seconds=0.2)
    assert card.requests == 2
    assert eventually(lambda: len(server.heard) == 2)  # the second may be heard after it was given up
    assert "honoured" not in {line.verdict for line in card.findings}


def test_where_there_is_no_such_address_it_ends_after_two_requests(server):
    """A 404 for the models and one for a completion are enough: the address is wrong, and not thirteen things."""
    server.scripts = [answer(b"<h1>nothing here</h1>", status="404 Not Found", kind="text/html")]
    card = examined(server)
    assert card.requests == len(server.heard) == 2
    assert "404" in card["completion"].detail


def test_a_server_that_never_ends_is_cut_off(server):
    """An answer that goes on for ever is bounded in bytes, and is a line of the card."""

    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            connection.sendall(b'data: {"choices": [{"text": "a", "index": 0}]}\n\n' * 1000)

    server.scripts = [endless]
    card = examined(server)
    assert len(card.findings) == len(LINES)
    assert "more than" in card["completion"].detail


def test_a_key_that_is_not_taken_is_said_and_the_rest_is_not_asked(server):
    """After two refusals of the key no further request is made."""
    server.scripts = [answer({"error": {"message": f"bad key {KEY}"}}, status="401 Unauthorized")]
    card = examined(server, api_key=KEY)
    assert card.requests == 2
    assert "401" in card["completion"].detail
    assert KEY[:10] not in repr(card.findings) + card.plain() + card.html()


# -- the card ----------------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script> \x1b[31m $5 and $6 \u202e [x](javascript:alert(2))"


class Elements(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """Note a tag with its attributes' names."""
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_data(self, data):
        """Note a text."""
        self.text += data


def test_a_card_is_inert(server):
    """What a server says in its refusal is text on the card, in a page and in a terminal."""
    Relay(server, refusing(holding("suffix"), said=HOSTILE))
    card = examined(server)
    page = Elements(card.html())
    assert page.tags <= {"p", "table", "tr", "td", "span", "code"}
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in card.plain() + card.html()
    assert "\u202e" not in card.plain() + card.html()


def test_a_card_from_a_file_is_inert():
    """What stands in a kept card, whoever wrote it, is one line of text as well."""
    finding = Finding("n", "ignored", f"{HOSTILE}\nand more")
    card = Card(
        endpoint=HOSTILE, base_url="http://127.0.0.1:1/v1", model=HOSTILE, date="2026-01-01", findings=[finding]
    )
    assert Elements(card.html()).tags <= {"p", "table", "tr", "td", "span", "code"}
    assert "\x1b" not in card.plain() + card.html() + repr(card)
    assert len(card.plain().splitlines()) == 3


def test_a_card_is_kept_for_the_endpoint_and_without_a_key(server):
    """It is read again as it was, by base URL, and the file is the person's alone."""
    Relay(server, refusing(holding("suffix"), said=f"what {KEY} is"))
    card = examined(server, api_key=KEY)
    assert Card.kept(server.base_url) == card
    assert Card.kept(server.base_url + "/other") is None
    [path] = (user_folder() / "cards").iterdir()
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]
    assert KEY[:10].encode() not in path.read_bytes()
    assert server.heard[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_new_card_takes_the_place_of_the_old_one(server):
    """There is one card an endpoint: the last."""
    Relay(server, IGNORED["n"])
    examined(server)
    Relay(server)
    examined(server)
    assert Card.kept(server.base_url)["n"].verdict == "honoured"
    assert len(list((user_folder() / "cards").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"findings": 3}', b"\xff\xfe"])
def test_a_damaged_card_is_none(server, content):
    """What cannot be read is as if it had never been found."""
    Relay(server)
    examined(server)
    [path] = (user_folder() / "cards").iterdir()
    path.write_bytes(content)
    assert Card.kept(server.base_url) is None


def test_a_folder_that_cannot_be_written_is_no_failure(server, tmp_path):
    """Where the card cannot be kept it is shown all the same."""
    (tmp_path / "config").write_text("a file where the folder should be")
    Relay(server)
    assert verdicts(examined(server)) == {}


def request(**parameters):
    """Return a request with these parameters."""
    return CompletionRequest.build(parameters.pop("prompt", "Hi"), model="m", **parameters)


@pytest.mark.parametrize(
    ("line", "uses", "does_not"),
    [
        ("n", {"n": 2}, {"n": 1}),
        ("a list of prompts", {"prompt": ["a", "b"]}, {"prompt": ["a"]}),
        ("stop as text", {"stop": "x"}, {"stop": ["x"]}),
        ("stop as a list", {"stop": ["x"]}, {"stop": "x"}),
        ("suffix", {"suffix": "x"}, {"user": "x"}),
        ("echo", {"echo": True}, {"echo": False}),
        ("logprobs", {"logprobs": 0}, {}),
        ("echo in streams", {"echo": True, "stream": True}, {"echo": True}),
        ("logprobs in streams", {"logprobs": 0, "stream": True}, {"logprobs": 0}),
        ("echo with logprobs", {"echo": True, "logprobs": 1}, {"logprobs": 1}),
        ("seed", {"seed": 0}, {}),
        ("max_tokens", {"max_tokens": 1}, {}),
        ("usage in streams", {"stream_options": {"include_usage": True}}, {"stream_options": {}}),
    ],
)
def test_a_card_knows_what_a_request_uses(line, uses, does_not):
    """Only what a request asks for counts, and only where it was found to be ignored."""
    card = Card(
        endpoint="lab", base_url="http://127.0.0.1:1/v1", date="2026-01-01", findings=[Finding(line, "ignored")]
    )
    assert card.ignores(request(**uses)) == [line]
    assert card.ignores(request(**does_not)) == []
    card.findings = [Finding(line, verdict) for verdict in ("honoured", "refused", "failed", "unclear")]
    assert card.ignores(request(**uses)) == []


def test_what_is_ignored_anyway_is_not_said_of_streams_again():
    """One notice for one thing, whether or not the answer is streamed."""
    findings = [Finding(line, "ignored") for line in ("echo", "echo in streams", "logprobs in streams")]
    card = Card(endpoint="lab", base_url="http://127.0.0.1:1/v1", date="2026-01-01", findings=findings)
    assert card.ignores(request(echo=True, logprobs=1, stream=True)) == ["echo", "logprobs in streams"]
    assert card.ignores(request(echo=True, logprobs=1)) == ["echo"]


# -- the magics --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(cells):
    """Return the cells of a shell with a server that ignores n and seed and has been examined; `heard` is empty."""
    Relay(cells.server, without("n", "seed"))
    where = (
        f"%config CompletionsMagics.base_url = '{cells.server.base_url}'\n%config CompletionsMagics.model = 'pocket'"
    )
    cells.run(where).raise_error()
    cells.run("card = %completions doctor").raise_error()
    cells.heard.clear()
    return cells


def test_the_magic_says_the_price_before_it_asks(cells, capsys, tmp_path):
    """%completions doctor NAME names the endpoint, the requests and the tokens, then asks, and shows the card."""
    Relay(cells.server)
    said = []
    script = cells.server.scripts[0]
    cells.server.scripts = [lambda connection: (said.append(capsys.readouterr().out), script(connection))]
    (tmp_path / "completions.toml").write_text(
        f'[profiles.lab]\nbase_url = "{cells.server.base_url}"\nmodel = "pocket"\n'
    )
    result = cells.run("%completions doctor lab")
    assert re.search(r"lab: at most 17 requests, \d+ generated tokens$", said[0].rstrip())
    assert result.result["n"] == Finding("n", "honoured", "2 choices")
    assert "honours 18 of 18" in result.result.plain()


def test_a_line_that_uses_what_is_ignored_is_told_once(lab, capsys):
    """The notice is on stderr, names parameter, endpoint and date, and comes once for each in a session."""
    capsys.readouterr()
    shown = []
    for options in ("-n 2", "-n 2", "", "-n 2 --seed 3", "--seed 4"):
        lab.run(f"%%complete {options} --max-tokens 4\nHi").raise_error()
        shown.append(capsys.readouterr().err)
    date = lab.names["card"].date
    name = lab.server.base_url
    assert shown == [
        f"{name} ignores n (%completions doctor, {date})\n",
        "",
        "",
        f"{name} ignores seed (%completions doctor, {date})\n",
        "",
    ]


def test_a_later_session_knows_the_card(lab, capsys):
    """Another session is told too, from the card that was kept."""
    unload_ipython_extension(lab.shell)
    load_ipython_extension(lab.shell)
    capsys.readouterr()
    lab.run(f"%%complete --base-url {lab.server.base_url} -m pocket -n 2 --max-tokens 4\nHi").raise_error()
    assert "ignores n" in capsys.readouterr().err


def test_rows_and_grids_are_told_once(lab, capsys):
    """A sweep and a batch that use what is ignored say so once, not at every point."""
    capsys.readouterr()
    lab.run("%%complete -n 2 --sweep temperature=0,1 --max-tokens 2\nHi").raise_error()
    assert capsys.readouterr().err.count("ignores n") == 1
    lab.names["rows"] = ["a", "b"]
    lab.run("%%complete -i rows --seed 1 --max-tokens 2\n{{ row }}").raise_error()
    assert capsys.readouterr().err.count("ignores seed") == 1


def test_nothing_is_said_where_a_cassette_is_used(lab, capsys, tmp_path):
    """A notebook that is replayed elsewhere, where there is no card, has the same outputs."""
    capsys.readouterr()
    lab.run(f"%%complete -n 2 --max-tokens 4 --cassette {tmp_path / 'c.jsonl'}\nHi").raise_error()
    assert lab.heard
    assert capsys.readouterr().err == ""


def test_what_is_honoured_or_never_was_examined_is_not_told(cells, capsys):
    """Without a card nothing is said."""
    Relay(cells.server, without("n"))
    cells.run(f"%%complete --base-url {cells.server.base_url} -m pocket -n 2 --max-tokens 4\nHi").raise_error()
    assert capsys.readouterr().err == ""


def test_an_examination_can_be_interrupted(cells, capsys):
    """The interrupt ends it within the request that is under way, and shows no frame of the transport."""

    def stall(connection):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        cells.server.wait_until_gone(connection)

    cells.server.scripts = [stall]
    result = cells.run(f"%config CompletionsMagics.base_url = '{cells.server.base_url}'\n%completions doctor")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert "Traceback" not in capsys.readouterr().out
    assert cells.server.gone.wait(5)
    assert len(cells.heard) == 1


# -- the command line --------------------------------------------------------------------------------------------------


def run(*arguments):
    """Run `completions-magic doctor`."""
    command = [sys.executable, "-m", "completions_magic", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_examines_an_address(server):
    """The price comes first, then the card; what it found is kept for the magics."""
    Relay(server, IGNORED["n"])
    done = run(server.base_url, "--model", "pocket")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith(f"asking {server.base_url}: at most 17 requests")
    assert re.search(r"^✗ n +ignored +asked for 2 choices, got 1$", done.stdout, re.MULTILINE)
    assert Card.kept(server.base_url)["n"].verdict == "ignored"


def test_the_command_examines_a_profile_with_its_key(server, monkeypatch):
    """A profile is named as elsewhere, and the model may be the first that the endpoint lists."""
    monkeypatch.setenv("LAB_KEY", KEY)
    user_folder().mkdir(parents=True)
    (user_folder() / "profiles.toml").write_text(
        f'[profiles.lab]\nbase_url = "{server.base_url}"\napi_key_env = "LAB_KEY"\n'
    )
    Relay(server)
    done = run("lab")
    assert (done.returncode, done.stderr) == (0, "")
    assert {heard.headers["authorization"] for heard in server.heard} == {f"Bearer {KEY}"}
    assert {heard.json["model"] for heard in server.heard if heard.body} == {"pocket"}
    assert KEY[:10] not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "there is no profile"),
        (["http://me:sk-secret-secret@127.0.0.1/v1"], "user name or password"),
        (["http://127.0.0.1:9/v1", "--api-key-from", KEY], "not the key itself"),
        (["http://192.0.2.1/v1", "--api-key-env", "LAB_KEY"], "--allow-http"),
    ],
)
def test_a_command_that_cannot_be_is_one_line(monkeypatch, arguments, words):
    """The error is one line on stderr, and shows no key."""
    monkeypatch.setenv("LAB_KEY", KEY)
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr
    assert KEY[:10] not in done.stderr


def test_an_endpoint_that_does_not_answer_is_exit_status_1():
    """Where no plain completion came, the card says why and the status is 1."""
    done = run(NOBODY)
    assert done.returncode == 1
    assert "cannot be reached" in done.stdout
