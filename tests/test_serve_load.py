"""`completions-magic serve` under load: slow clients, many clients, and requests that are no HTTP or no JSON."""

import contextlib
import json
import os
import re
import resource
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import eventually
from served import Served, check_error, head, post, receive, serving

from completions_magic.local.app import BODY_LIMIT

FRANCE = {"model": "pocket", "prompt": "Q: What is the capital of France?\nA:", "temperature": 0}
ENDLESS = {"model": "pocket", "prompt": "x", "max_tokens": 16_000, "n": 128, "logit_bias": {"0": -100}}
# Four megabytes of events before the first token is drawn.
BROAD = {"model": "pocket", "prompt": "the cat " * 4000, "echo": True, "n": 128, "stream": True}
REQUESTS = int(os.environ.get("SERVE_REQUESTS", "1000"))
"""How many one after the other; `make endurance` takes ten thousand."""


@pytest.fixture(scope="module")
def served():
    """Serve with the command's own limits; nothing of what the tests say makes it write a word."""
    with serving() as served:
        yield served
        assert served.end() == (0, "", "")


@pytest.fixture(scope="module")
def hurried():
    """Serve with little time for anything; nothing that is cut off makes it write a word."""
    with serving(limits={"asking": 1, "reading": 1, "answer": 2}) as served:
        yield served
        assert served.end()[1:] == ("", "")


def ask(served):
    """Return what a short request of a new client is answered."""
    return answer_of(served.say(last(FRANCE)))


def last(body):
    """Return a POST that is the last on its connection."""
    return post(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def answer_of(content):
    """Return the text of an answer, whole or streamed."""
    head, _, body = content.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    if b"text/event-stream" not in head:
        return json.loads(body)["choices"][0]["text"]
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert events.pop() == b"[DONE]"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


# --- Slow clients


def is_closed(connection):
    """Say whether the server has hung up."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(65536) == b""
    return True


DRIPS = {
    "a head": head("X-Long: " + "x" * 1000)[:1000],
    "a body": post({**FRANCE, "user": "x" * 1000}),
    "blank lines": b"\r\n" * 500,
    "a chunk's size": head("Content-Type: application/json\r\nTransfer-Encoding: chunked") + b"0" * 1000,
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_a_request_has_its_time_however_steadily_it_comes(hurried, drip):
    """Clients that send a byte now and then are cut off, and another is answered meanwhile."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(hurried.connect()) for _ in range(12)]
        for byte in drip:
            slow = [connection for connection in slow if not is_closed(connection)]
            if not slow:
                break
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([byte]))
            assert ask(hurried) == " Paris."
            time.sleep(0.02)
        assert not slow


def test_clients_that_do_not_read_keep_nobody_waiting():
    """Forty streams stand still in little memory while others are answered, and end when their time is over."""
    with serving(limits={"reading": 4}) as served, contextlib.ExitStack() as stack:
        assert ask(served) == " Paris."
        threads, descriptors, memory = served.size()
        for _ in range(40):
            stack.enter_context(served.connect_slowly()).sendall(post(BROAD))
        assert eventually(served.rests)
        assert ask(served) == " Paris."
        # A descriptor each: what is not read has become no file.
        assert served.size()[:2] == (threads, descriptors + 40)
        assert served.size()[2] < memory + 100 * 2**20
        assert eventually(lambda: served.size()[:2] == (threads, descriptors), 20)


def test_a_whole_answer_that_nobody_reads_is_dropped():
    """The same for an answer that was made at once."""
    with serving(limits={"reading": 1}) as served:
        descriptors = served.size()[1]
        with served.connect_slowly() as connection:
            prompts = ["the cat " * 4000] * 100
            connection.sendall(post({"model": "pocket", "prompt": prompts, "echo": True, "max_tokens": 0}))
            assert select.select([connection], [], [], 60)[0]
            assert eventually(lambda: served.size()[1] <= descriptors)
            assert len(receive(connection)) < 2**20


def test_a_client_that_reads_now_and_then_has_its_time_too():
    """Reading a little does not keep a stream for ever."""
    with serving(limits={"answer": 2}) as served:
        descriptors = served.size()[1]
        with served.connect_slowly() as connection:
            connection.sendall(post(BROAD))
            until = time.monotonic() + 15
            assert connection.recv(2048)
            while served.size()[1] > descriptors:
                assert connection.recv(2048)
                assert time.monotonic() < until
                time.sleep(0.05)


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 1, "best_of": 20}, {"n": 1, "suffix": "end"}], ids=repr)
def test_an_answer_that_does_not_end_is_ended(hurried, more):
    """What takes too long is no longer worked on, and its client sees the connection close."""
    answer = hurried.say(post({**ENDLESS, **more}))
    assert b"[DONE]" not in answer
    assert b'"finish_reason":"' not in answer
    assert eventually(hurried.rests)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_leaves_no_trace(stream):
    """Work before the first event ends too when its client goes, and nothing is written to the terminal."""
    with serving() as served:
        for _ in range(4):
            with served.connect() as connection:
                connection.sendall(post({**ENDLESS, "n": 1, "suffix": "end", "stream": stream}))
                served.wait_until_busy()
        assert eventually(served.rests)
        assert served.end() == (0, "", "")


# --- Many clients


def test_two_hundred_clients_at_once_get_what_each_gets_alone(served):
    """Streamed and whole answers are right, and leave neither threads, descriptors nor memory behind."""

    def answers(number):
        return answer_of(served.say(last({**FRANCE, "stream": bool(number % 2)})))

    def round_of_answers():
        with ThreadPoolExecutor(200) as pool:
            return set(pool.map(answers, range(200)))

    for _ in range(4):  # until every thread has worked
        assert round_of_answers() == {" Paris."}
    threads, descriptors, memory = served.size()
    for _ in range(4):
        assert round_of_answers() == {" Paris."}
    assert eventually(lambda: served.size()[:2] <= (threads, descriptors))
    assert served.size()[2] < memory + 4 * 2**20


def test_small_requests_do_not_wait_for_long_ones(served):
    """While forty clients are given endless answers another gets its own."""
    with contextlib.ExitStack() as stack:
        for number in range(40):
            connection = stack.enter_context(served.connect())
            connection.sendall(post({**ENDLESS, "n": 2, "stream": bool(number % 2)}))
        served.wait_until_busy()
        assert ask(served) == " Paris."
    assert eventually(served.rests, 20)


def test_three_hundred_idle_connections_do_not_block(served):
    """Another client is answered at once, and then the idle ones can still ask."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(served.connect()) for _ in range(300)]
        assert ask(served) == " Paris."
        for connection in (idle[0], idle[-1]):
            connection.sendall(post({**FRANCE, "stream": True}))
            assert answer_of(receive(connection)) == " Paris."


def test_when_no_more_connections_fit_idle_ones_make_room():
    """A server that is full of silent clients hangs up on them early."""
    with serving(limits={"connections": 20, "asking": 10}) as served, contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(served.connect())
        # In three times a second or two; without room made, thrice ten seconds are more than a client here waits.
        assert ask(served) == " Paris."


def test_where_the_system_gives_few_descriptors_fewer_are_connected():
    """A server that may open 128 files is full before they are used up, and makes room as well."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, usual[1]))
    try:
        served = Served(limits={"asking": 10})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    with contextlib.closing(served), contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(served.connect())
        assert ask(served) == " Paris."


def test_requests_one_after_the_other_leave_nothing(served):
    """Neither memory nor threads nor descriptors grow with requests, on one connection or on one each."""

    def on_one_connection(number):
        request = post({**FRANCE, "max_tokens": 1})
        with served.connect() as connection:
            for _ in range(number):
                connection.sendall(request)
                content = b""
                while not content.endswith(b"}}"):
                    content += connection.recv(65536)
                assert answer_of(content) == " Paris"

    def on_one_each(number):
        for _ in range(number):
            assert ask(served) == " Paris."

    on_one_connection(400)
    on_one_each(400)
    threads, descriptors, memory = served.size()
    on_one_connection(REQUESTS)
    on_one_each(REQUESTS)
    assert eventually(lambda: served.size()[:2] <= (threads, descriptors))
    assert served.size()[2] < memory + 2 * 2**20


# --- What is no HTTP


def get(target=b"/v1/models", lines=b"Host: localhost\r\n", version=b" HTTP/1.1"):
    """Return a GET."""
    return b"GET " + target + version + b"\r\n" + lines + b"\r\n"


def chunked(content, lines=""):
    """Return a POST whose body is said to come in chunks."""
    return head(f"Content-Type: application/json{lines}\r\nTransfer-Encoding: chunked") + content


def sized(size, content=b""):
    """Return a POST with this Content-Length."""
    return head(f"Content-Type: application/json\r\nContent-Length: {size}") + content


WHOLE = json.dumps(FRANCE).encode()
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(WHOLE), WHOLE)
NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/0.9": get(lines=b"", version=b""),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": get(version=b" HTTP/9.9"),
    "a small method": b"get /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no target": get(b""),
    "two blanks": get(b" /v1/models"),
    "bytes in the target": get(b"/v1/models/\xff\xfe"),
    "half an address": get(b"http://[::1/v1/models"),
    "an address that is none": get(b"http://[zz]/v1/models"),
    "a line without a colon": get(lines=b"Host: localhost\r\nnonsense\r\n"),
    "a blank before the colon": get(lines=b"Host : localhost\r\n"),
    "a NUL in a value": get(lines=b"Host: localhost\r\nX: a\x00b\r\n"),
    "a NUL in a name": get(lines=b"Host: localhost\r\nX\x00: a\r\n"),
    "a bare return": get(lines=b"Host: localhost\rX: y\r\n"),
    "a line that goes on from none": get(lines=b" Host: localhost\r\n"),
    "a negative length": sized(-5),
    "a length with a sign": sized("+5"),
    "an empty length": sized(""),
    "a length of digits": sized("9" * 5000),
    "two lengths": sized("5\r\nContent-Length: 6", b"{}"),
    "a list of lengths": sized("2, 2", b"{}"),
    "a length and chunks": chunked(CHUNKS, "\r\nContent-Length: 5"),
    "chunks in HTTP/1.0": chunked(CHUNKS, "\r\nConnection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an unknown coding": chunked(CHUNKS).replace(b": chunked", b": gzip, chunked"),
    "a hidden coding": chunked(CHUNKS).replace(b": chunked", b": \x0bchunked"),
    "a negative chunk": chunked(b"-1\r\n\r\n"),
    "a chunk with a sign": chunked(b"+2\r\n{}\r\n0\r\n\r\n"),
    "a chunk in 0x": chunked(b"0x2\r\n{}\r\n0\r\n\r\n"),
    "an endless size": chunked(b"0" * 8000),
    "an endless trailer": chunked(b"0\r\nX: ".ljust(8000, b"x")),
    "a chunk that goes on": chunked(b"2\r\n{}{}\r\n0\r\n\r\n"),
    "no body": head("Content-Type: application/json\r\nConnection: close"),
    "an empty body": head("Content-Type: application/json\r\nConnection: close\r\nContent-Length: 0"),
    "a promise without a body": head("Content-Type: application/json\r\nConnection: close\r\nExpect: 100-continue"),
}
TOO_LARGE = {
    "a length": sized(BODY_LIMIT),
    "a length of 4,000 digits": sized("9" * 4000),
    "a length, and a promise": sized(f"{BODY_LIMIT}\r\nExpect: 100-continue"),
    "a chunk": chunked(b"f" * 16 + b"\r\n{"),
}
TOO_LARGE_A_HEAD = {"one line": get(lines=b"X: ".ljust(2**18, b"x")), "lines": get(lines=b"X: y\r\n" * 50_000)}


@pytest.mark.parametrize("content", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_refused(served, content):
    """The answer is 400 as an error object, and the connection closes."""
    check_refusal(served.say(content), 400)


@pytest.mark.parametrize("content", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_will_be_too_large_is_refused_before_it_comes(served, content):
    """The answer is 413 as an error object, without an invitation to go on."""
    check_refusal(served.say(content), 413)


@pytest.mark.parametrize("content", TOO_LARGE_A_HEAD.values(), ids=TOO_LARGE_A_HEAD)
def test_a_head_that_is_too_large_is_refused(served, content):
    """The answer is 431 as an error object."""
    check_refusal(served.say(content), 431)


def check_refusal(content, status):
    """Check that `content` is one refusal in the API's error shape."""
    head, _, body = content.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] %d " % status, head)
    assert b"site-packages" not in body
    check_error(body)


def test_a_whole_address_counts_more_than_host(served):
    """The machine that the target names must be this one."""
    close = b"Host: localhost\r\nConnection: close\r\n"
    assert served.say(get(b"http://localhost/v1/models", close)).startswith(b"HTTP/1.1 200 ")
    assert served.say(get(b"http://evil.example/v1/models", close)).startswith(b"HTTP/1.1 403 ")


def test_a_client_may_wait_for_100_continue(served):
    """A body that was announced is asked for, and then answered."""
    lines = (
        f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(WHOLE)}\r\nExpect: 100-continue"
    )
    with served.connect() as connection:
        connection.sendall(head(lines))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(WHOLE)
        assert answer_of(receive(connection)) == " Paris."


def test_requests_that_are_sent_ahead_are_answered_in_turn(served):
    """Thirty requests in one go get thirty answers in their order, and a bad one ends the connection."""
    ahead = b"".join(post({**FRANCE, "echo": True, "prompt": f"{number}:", "max_tokens": 1}) for number in range(30))
    answers = served.say(ahead + b"NONSENSE\r\n\r\n" + ahead)
    assert re.findall(rb'"text":"(\d+):', answers) == [b"%d" % number for number in range(30)]
    assert answers.count(b"HTTP/1.") == 31
    check_error(answers.rpartition(b"\r\n\r\n")[2])


# --- What is no JSON


def with_field(field):
    """Return a body with one more field."""
    return WHOLE[:-1] + b", " + field + b"}"


NO_JSON = {
    "blank": b" ",
    "half": WHOLE[:-1],
    "more behind": WHOLE + b"x",
    "twice": WHOLE + WHOLE,
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "bytes that are no UTF-8": with_field(b'"user": "\xff\xfe"'),
    "a surrogate in UTF-8": with_field(b'"user": "\xed\xa0\x80"'),
    "half a pair": with_field(b'"user": "\\ud800"'),
    "half a pair as a name": with_field(b'"\\udc00": 1'),
    "a NUL": with_field(b'"user": "a\x00b"'),
    "NaN": with_field(b'"top_p": NaN'),
    "infinity": with_field(b'"logit_bias": {"5": Infinity}'),
    "a number beyond floats": with_field(b'"top_p": 1e999'),
    "an integer of 4,000 digits": with_field(b'"seed": ' + b"9" * 4000),
    "an integer of a million digits": with_field(b'"seed": ' + b"9" * 10**6),
    "a token of 5,000 digits": with_field(b'"logit_bias": {"' + b"9" * 5000 + b'": 1}'),
    "a name that stands twice": with_field(b'"model": "pocket"'),
    "a name that stands twice, within": with_field(b'"logit_bias": {"5": 1, "5": 2}'),
    "lists without end": b"[" * 10**6,
    "objects without end": b'{"a":' * 500_000,
    "a list": b"[]",
    "null": b"null",
    "many fields": b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "many prompts": with_field(b'"prompts": [' + b'"",' * 10**6 + b'""]'),
}


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_or_no_body_is_refused(served, content):
    """The answer is 400 as an error object."""
    answer = served.say(last(content))
    assert answer.startswith(b"HTTP/1.1 400 ")
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    check_error(answer.partition(b"\r\n\r\n")[2], body["error"]["param"])


def test_nothing_is_too_deep_to_be_refused(served):
    """However deep a field is, on both sides of what the parser can hold, it is refused and no more."""
    for name in (b"user", b"prompt", b"model", b"logit_bias"):
        for depth in (10, 300, *range(950, 1000), 2000, 100_000):
            content = b'{"model": "pocket", "' + name + b'": ' + b"[" * depth + b"]" * depth + b"}"
            answer = served.say(last(content))
            assert answer.startswith(b"HTTP/1.1 400 "), (name, depth)


LARGE = {
    "a stop": ({**FRANCE, "stop": "the " * 10**6}, 200),
    "a user": ({**FRANCE, "user": "x" * 4 * 10**6}, 200),
    "a suffix": ({**FRANCE, "suffix": "x" * 4 * 10**6}, 200),
    "blanks": ({**FRANCE, "prompt": " " * 4 * 10**6}, 400),
    "one word": ({**FRANCE, "prompt": "thecat" * 6 * 10**5}, 400),
    "token ids": ({**FRANCE, "prompt": [5] * 10**6}, 400),
}


@pytest.mark.parametrize(("body", "status"), LARGE.values(), ids=LARGE)
def test_a_large_field_takes_no_more_than_its_share(served, body, status):
    """Four megabytes in one field are answered or refused in seconds."""
    answer = served.say(last(body))
    assert answer.startswith(b"HTTP/1.1 %d " % status)


# --- Other machines


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_takes_one_more_word(host):
    """Without --allow-network nothing is listened on, and one line says what to say."""
    command = [sys.executable, "-m", "completions_magic", "serve", "--host", host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
        err = process.stderr.read()
    assert (line, process.returncode) == ("", 1)
    assert err == (
        f"completions-magic: {host} lets other machines ask: say --allow-network if they may, "
        "and give them a key with --api-key-env\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
def test_other_names_of_this_machine_take_no_word(host):
    """An address of loopback is listened on as it is."""
    with serving("--host", host) as served:
        assert served.line == f"listening on http://{host}:{served.port}/v1\n"


def test_with_the_word_others_may_ask_by_number():
    """Whoever names this machine by an address is answered; a name may have been bent, and is refused."""
    with serving("--host", "0.0.0.0", "--allow-network") as served:
        for host, status in {
            "192.0.2.7:8000": 200,
            "192.0.2.7": 200,
            "[2001:db8::7]:80": 200,
            "evil.example": 403,
        }.items():
            lines = f"Host: {host}\r\nConnection: close\r\n".encode()
            assert served.say(get(lines=lines)).startswith(b"HTTP/1.1 %d " % status)
