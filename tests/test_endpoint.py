"""The endpoint over a real socket: failures in our words, keys that nobody sees, TLS, redirects and proxies."""

import copy
import gc
import json
import logging
import pickle
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing, suppress
from functools import partial
from itertools import pairwise
from urllib.parse import quote

import httpx
import pytest
from conftest import (
    DONE,
    PlainServer,
    ScriptedServer,
    TlsServer,
    again,
    answer,
    event,
    piece,
    says,
    stream,
    stream_head,
)
from IPython.core.ultratb import VerboseTB

from completions_magic import Client, Profile, no_waits
from completions_magic.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CompletionsError,
    Interrupted,
    NotFoundError,
    PermissionDeniedError,
    ProfileError,
    PromptError,
    RateLimitError,
    RedirectError,
    ServerError,
)
from completions_magic.key import ApiKey
from completions_magic.profiles import choose_profile
from completions_magic.transport import ProxiedTransport, WatchedTransport

HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])
KEY = "sk-Zq7Xw9Rt2Lm4Kp8V/Bd6Hs1Wf5Gj3Nc0+Ty8Ua"
"""A key as some services make them: with a slash and a plus, which URLs and JSON may spell in another way."""


def leaks(text):
    """Return the ten-character pieces of the key in `text`, whatever colours it has."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [KEY[start : start + 10] for start in range(len(KEY) - 9) if KEY[start : start + 10] in text]


def chain(error):
    """Yield an exception, its cause and its context, and theirs."""
    while error is not None:
        yield error
        if error.__cause__ is not None and error.__context__ is not error.__cause__:
            yield from chain(error.__context__)
        error = error.__cause__ or error.__context__


def shown(error):
    """Return all the text that an exception and its chain bring along, the traceback too."""
    parts = [f"{part!s} {part!r} {part.args!r} {vars(part)!r}" for part in chain(error)]
    return "\n".join([*parts, *traceback.format_exception(error)])


def verbose(error):
    """Return what `%xmode Verbose` shows, locals and all, where a cell raises an error of its own from this one."""
    wrapped = RuntimeError("of the cell")
    wrapped.__cause__ = error
    text = VerboseTB().text(RuntimeError, wrapped, None)
    assert type(error).__name__ in text
    return text


def failure(client, ask=lambda client: client.complete("a")):
    """Return the exception that asking raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # an interrupt or an error, the tests look
        ask(client)
    return caught.value


@pytest.fixture
def keyed(server, monkeypatch):
    """Give a function that makes a client of the server whose key comes from the environment."""
    monkeypatch.setenv("SERVER_KEY", KEY)
    profile = Profile("mine", server.base_url, "SERVER_KEY", "m")
    return lambda **settings: Client(profile, **{"timeout": 30.0, **settings})


# ---------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, BadRequestError, "bad_request"),
        (413, BadRequestError, "bad_request"),
        (422, BadRequestError, "bad_request"),
        (401, AuthenticationError, "auth"),
        (402, PermissionDeniedError, "permission"),
        (403, PermissionDeniedError, "permission"),
        (404, NotFoundError, "not_found"),
        (429, RateLimitError, "rate_limit"),
        (408, ServerError, "server"),
        (409, ServerError, "server"),
        (500, ServerError, "server"),
        (502, ServerError, "server"),
        (503, ServerError, "server"),
        (504, ServerError, "server"),
        (529, ServerError, "server"),
        (405, APIStatusError, "status"),
        (410, APIStatusError, "status"),
        (418, APIStatusError, "status"),
    ],
)
def test_every_status_has_its_error(server, status, error, kind):
    """Class, kind, status, endpoint, request id and partial completion are those of the tree."""
    server.scripts = [answer({"error": {"message": "no"}}, status=f"{status} No", headers="X-Request-Id: req-7\r\n")]
    with server.client(retries=0) as client:
        raised = failure(client)
    assert type(raised) is error
    assert (raised.kind, raised.status, raised.request_id) == (kind, status, "req-7")
    assert (raised.endpoint, raised.partial) == (server.base_url, None)
    assert str(status) in str(raised)


BODIES = {
    "OpenAI": {"error": {"message": "top_k is unknown", "type": "invalid_request_error", "param": None, "code": None}},
    "OpenAI, numbered": {"error": {"message": "top_k is unknown", "type": "BadRequestError", "code": 400}},
    "vLLM": {"object": "error", "message": "top_k is unknown", "type": "BadRequestError", "param": None, "code": 400},
    "FastAPI": {"detail": "top_k is unknown"},
    "FastAPI, list": {"detail": [{"loc": ["body", "top_k"], "msg": "is unknown", "type": "extra"}]},
    "FastAPI, no place": {"detail": [{"loc": None, "msg": "top_k is unknown"}]},
    "FastAPI, odd place": {"detail": [{"loc": 3, "msg": "top_k is unknown"}, None, 7]},
    "text": {"error": "top_k is unknown"},
    "message": {"message": "top_k is unknown"},
    "other JSON": {"reason": "top_k is unknown"},
    "list": ["top_k is unknown"],
    "plain": b"top_k is unknown\n",
    "HTML": b"<html><head><title>top_k is\n unknown</title></head><body>" + b"<p>no</p>" * 999,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_the_message_of_a_refusal_holds_what_the_server_said(server, body):
    """In any of the shapes that servers use, and on one line without tags."""
    server.scripts = [answer(body, status="400 Bad Request", kind="text/plain")]
    with server.client() as client:
        said = str(failure(client))
    assert re.search(r"top_k:? is unknown", said)
    assert "\n" not in said
    assert "<" not in said


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"{}",
        b"null",
        b'{"error": {}}',
        b'{"error": null}',
        b"x" * 2**20,
        b'{"error": {"message": "' + b"long " * 2**16 + b'"}}',
        b"[" * 100_000,
        b'{"detail": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"<!doctype html><body>no title",
    ],
    ids=[
        "empty",
        "bytes",
        "object",
        "null",
        "no message",
        "null error",
        "long",
        "long message",
        "deep",
        "nest",
        "page",
    ],
)
def test_a_refusal_with_an_odd_body_is_still_its_status(server, body):
    """Whatever the body is, the error is that of the status, on one line of at most 2,000 characters."""
    server.scripts = [answer(body, status="400 Bad Request")]
    with server.client() as client:
        raised = failure(client)
    assert type(raised) is BadRequestError
    assert len(str(raised)) <= 2000
    assert "\n" not in str(raised)


def test_a_long_reason_does_not_make_a_long_message(server):
    """The status line is the server's too."""
    server.scripts = [answer(b"no", status="400 " + "no " * 9999)]
    with server.client() as client:
        assert len(str(failure(client))) <= 2000


def test_an_error_can_always_be_written(server):
    """Halves of surrogate pairs in what a server says become U+FFFD: a kernel cannot send them."""
    server.scripts = [answer(b'{"error": {"message": "no \\ud83d"}}', status="400 Bad Request")]
    with server.client() as client:
        assert "no \ufffd" in str(failure(client)).encode().decode()


@pytest.mark.parametrize(
    "script",
    [
        answer(b'{"error": {"message": "\\u001b[2J\\u001b]0;no\\u0007"}}', status="400 No"),
        answer(b"\x1b[2J\x1b]0;no\x07", status="400 No", kind="text/plain"),
        answer(b'{"error": "\\u001b[2J\\u001b]0;no\\u0007"}'),
        answer(b"\x1b[2J\x1b]0;no\x07"),
        b"HTTP/1.1 200 \x1b[2J\r\n\x1b]0;no\x07\r\n\r\n",
    ],
    ids=["JSON", "plain", "in an answer", "no JSON", "in the head"],
)
def test_what_a_server_says_drives_no_terminal(server, script):
    """Control characters in an error are shown as signs."""
    server.scripts = [script]
    with server.client(retries=0) as client:
        raised = failure(client)
    assert isinstance(raised, CompletionsError)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", "".join(raised._render_traceback_()))


def test_an_error_body_that_never_ends_is_left(server):
    """The status is what counts: the body is read up to a limit, and the connection closed."""

    def endless(connection):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                connection.sendall(piece(b"x" * 2**12))
        except OSError:
            server.gone.set()

    server.scripts = [endless]
    start = time.monotonic()
    with server.client(timeout=30.0) as client:
        assert type(failure(client)) is BadRequestError
    assert time.monotonic() - start < 10
    assert server.gone.wait(5)


def test_an_error_body_that_is_cut_is_still_its_status(server):
    """What went wrong while the body was read does not hide the status."""
    server.scripts = [lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\nContent-Length: 99\r\n\r\ntop_k")]
    with server.client() as client:
        raised = failure(client)
    assert type(raised) is BadRequestError
    assert "top_k" in str(raised)


def test_headers_without_an_end_are_refused(server):
    """The size of a head is bounded."""

    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                connection.sendall(b"X-More: " + b"x" * 2**12 + b"\r\n")
        except OSError:
            server.gone.set()

    server.scripts = [endless]
    with server.client(retries=0) as client:
        assert isinstance(failure(client), APIConnectionError)
    assert server.gone.wait(5)


@pytest.mark.parametrize("header", ["X-Request-Id", "Request-Id"])
def test_the_request_id_is_the_servers(server, header):
    """Both names of the header are read."""
    server.scripts = [answer({}, status="400 Bad Request", headers=f"{header}: req-7\r\n")]
    with server.client() as client:
        assert failure(client).request_id == "req-7"


def test_a_refused_key_says_which_variable_to_look_at(server, keyed):
    """The next step after a 401 names the variable, never its value."""
    server.scripts = [answer({}, status="401 Unauthorized")]
    with keyed() as client:
        assert "SERVER_KEY" in str(failure(client))


def test_a_missing_key_says_which_option_names_one(server):
    """The next step after a 401 without a key is --api-key-env."""
    server.scripts = [answer({}, status="401 Unauthorized")]
    with server.client() as client:
        assert "--api-key-env" in str(failure(client))


def test_a_404_says_how_base_urls_end(server):
    """Where /v1 is missing the message says so."""
    server.scripts = [answer({}, status="404 Not Found")]
    with Client(base_url=server.origin, model="m") as client:
        assert "/v1" in str(failure(client))


def test_a_body_that_does_not_decompress_is_no_completion(server):
    """Compression was not asked for; a broken one is a decode error."""
    server.scripts = [answer(b"not gzip at all", headers="Content-Encoding: gzip\r\n")]
    with server.client() as client:
        assert failure(client).kind == "decode"


# ---------------------------------------------------------------- redirects


@pytest.fixture
def elsewhere():
    """Give a second server, which should hear nothing."""
    with closing(ScriptedServer([HELLO])) as other:
        yield other


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, keyed, elsewhere, status):
    """Neither key nor prompt goes on; the error names the target and is not tried again."""
    target = f"{elsewhere.base_url}/completions"
    server.scripts = [answer(b"", status=f"{status} Moved", headers=f"Location: {target}\r\n")]
    with keyed() as client:
        raised = failure(client)
    assert type(raised) is RedirectError
    assert (raised.kind, raised.status) == ("redirect", status)
    assert target in str(raised)
    assert (len(server.heard), elsewhere.heard) == (1, [])


def test_a_redirect_of_the_models_is_not_followed(server, keyed, elsewhere):
    """A GET is not followed either."""
    server.scripts = [answer(b"", status="302 Found", headers=f"Location: {elsewhere.base_url}/models\r\n")]
    with keyed() as client:
        assert failure(client, Client.models).kind == "redirect"
    assert elsewhere.heard == []


def test_a_redirect_to_nowhere_is_a_redirect(server):
    """A status without a Location is one too, and gives nobody a base URL."""
    server.scripts = [answer(b"", status="304 Not Modified")]
    with server.client() as client:
        raised = failure(client)
    assert raised.kind == "redirect"
    assert "304 Not Modified" in str(raised)
    assert "make it the base URL" not in str(raised)


# ---------------------------------------------------------------- TLS

# Made for these tests: it guards nothing, and no machine trusts it.
SELF_SIGNED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg5EyZFUjOzlOV5y5n
ps5unE9/NgnxK9HAwYY7Iii/7wmhRANCAAStkljJZksS+CI11NufcktrU3SkmCXz
Eo/HLvYOfJCbJfCfzgfL6OvpUJTi8Dk7ycmwCuhPpIePDZ9PuezgubB+
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBZzCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABK2SWMlmSxL4IjXU
259yS2tTdKSYJfMSj8cu9g58kJsl8J/OB8vo6+lQlOLwOTvJybAK6E+kh48Nn0+5
7OC5sH6jTjBMMA8GA1UdEwEB/wQFMAMBAf8wGgYDVR0RBBMwEYIJbG9jYWxob3N0
hwR/AAABMB0GA1UdDgQWBBR01BktOuuKBxIFE9UAQsSzq5R9PzAKBggqhkjOPQQD
AgNIADBFAiAFOvs90MeUUMVZQpgXJx3vUy4IhX0quaF78aKaXxGoZAIhAPwE2gc2
9DRRD5HVH5ZMYdpTtCmxMyzUt7+1vTRYSaTW
-----END CERTIFICATE-----
"""


@pytest.fixture
def pem(tmp_path):
    """Give the file of the certificate."""
    path = tmp_path / "self-signed.pem"
    path.write_text(SELF_SIGNED)
    return path


@pytest.fixture
def tls(pem):
    """Give a server with a certificate that nobody has signed but itself."""
    with closing(TlsServer(pem, [HELLO])) as server:
        yield server


def test_a_certificate_that_nobody_vouches_for_is_refused(tls):
    """Kind "tls", not tried again, and the server hears neither key nor prompt."""
    waits = []
    with tls.client(api_key=KEY, on_wait=waits.append) as client:
        raised = failure(client)
    assert type(raised) is APIConnectionError
    assert (raised.kind, waits, tls.heard) == ("tls", [], [])
    assert leaks(shown(raised) + verbose(raised)) == []


def test_the_scheme_in_capitals_is_refused_alike(tls):
    """HTTPS:// is https://, with its certificates."""
    with Client(base_url=tls.base_url.replace("https", "HTTPS"), model="m") as client:
        assert failure(client).kind == "tls"


@pytest.mark.parametrize("name", ["PYTHONHTTPSVERIFY", "CURL_SSL_NO_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED"])
def test_no_variable_turns_verification_off(tls, monkeypatch, name):
    """What turns it off elsewhere does nothing here."""
    monkeypatch.setenv(name, "0")
    with tls.client() as client:
        assert failure(client).kind == "tls"


def test_a_certificate_that_is_trusted_is_accepted(tls, pem):
    """Trust is given with the transport."""
    with tls.client(transport=httpx.HTTPTransport(verify=ssl.create_default_context(cafile=pem))) as client:
        assert client.complete("a").text == "Hello"


def test_stop_ends_a_silent_stream_over_tls(tls, pem):
    """The socket under the encryption is what is shut."""
    begun, ended = threading.Event(), threading.Event()

    def stall(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        tls.wait_until_gone(connection)

    def read(chunks):
        for _ in chunks:
            begun.set()
        ended.set()

    tls.scripts = [stall]
    with tls.client(transport=httpx.HTTPTransport(verify=ssl.create_default_context(cafile=pem))) as client:
        chunks = client.stream("a")
        threading.Thread(target=read, args=(chunks,), daemon=True).start()
        assert begun.wait(5)
        chunks.stop()
        assert ended.wait(10)
        assert tls.gone.wait(10)
    assert chunks.partial.text == "Hel"


@pytest.mark.parametrize(
    "server",
    [
        PlainServer,
        partial(PlainServer, b"<html>Bad request syntax"),
        partial(PlainServer, b""),
        partial(ScriptedServer, [HELLO]),
    ],
    ids=["refuses", "refuses without a head", "hangs up", "waits for the end of the head"],
)
def test_https_where_plain_http_is_spoken_fails_at_once_with_the_address_to_try(server):
    """Whether it answers to TLS or not: kind "tls", not tried again; and it hears neither key nor prompt."""
    waits = []
    with closing(server()) as plain:
        base_url = plain.base_url.replace("http", "https")
        with Client(base_url=base_url, model="m", api_key=KEY, connect_timeout=60, on_wait=waits.append) as client:
            began = time.monotonic()
            raised = failure(client)
    assert str(raised) == f"{base_url} speaks plain http: try {plain.base_url}"
    assert (raised.kind, waits) == ("tls", [])
    assert [heard.method for heard in plain.heard] == ["HEAD"]
    assert all("authorization" not in heard.headers and not heard.body for heard in plain.heard)
    assert time.monotonic() - began < 10


def test_what_speaks_neither_is_not_called_plain_http():
    """A port of something else has the words of TLS, and is not tried again."""
    waits = []
    with closing(Silent()) as other:
        other.says.set()
        with Client(base_url=other.base_url, model="m", on_wait=waits.append) as client:
            raised = failure(client)
    assert str(raised).startswith(f"{other.base_url} has not agreed on TLS, as if it were no https: ")
    assert (raised.kind, waits) == ("tls", [])


class Silent(ScriptedServer):
    """A server that hears and says nothing; once `says` is set, what is neither TLS nor http."""

    def __init__(self):
        self.says = threading.Event()
        self.asked = threading.Event()
        super().__init__()
        self.base_url = f"https://127.0.0.1:{self.port}/v1"

    def _talk(self, connection):
        with connection:
            if self.says.is_set():
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.recv(1)
            self.asked.set()
            self.wait_until_gone(connection)


def test_a_peer_that_says_nothing_to_tls_takes_one_connect_timeout_a_try():
    """It may be busy: it is tried again, and nothing is added for the look whether it speaks plain http."""
    moments = []
    with closing(Silent()) as silent, no_waits():
        settings = {"connect_timeout": 2, "retries": 2, "on_wait": lambda _: moments.append(time.monotonic())}
        with Client(base_url=silent.base_url, model="m", **settings) as client:
            began = time.monotonic()
            raised = failure(client)
            moments.append(time.monotonic())
    assert raised.kind == "timeout"
    assert "within 2 s (--connect-timeout)" in str(raised)
    assert len(moments) == 3
    tries = [ended - before for before, ended in pairwise([began, *moments])]
    # The look takes a quarter of a try: added, it would make each 2.5 s. A busy machine may draw out one or the other.
    assert 2 <= min(tries) < 2.4


def test_stop_ends_a_handshake():
    """In the middle of the wait for an answer to TLS, long before its time is over."""
    ended = threading.Event()
    with closing(Silent()) as silent, Client(base_url=silent.base_url, model="m", connect_timeout=60) as client:
        chunks = client.stream("a")
        threading.Thread(target=lambda: (list(chunks), ended.set()), daemon=True).start()
        assert silent.asked.wait(5)
        chunks.stop()
        assert ended.wait(5)


class SlowTls(TlsServer):
    """A server of https that is slow to shake hands, and says 400 to plain http at once."""

    def __init__(self, pem, scripts):
        self.probed = threading.Event()
        super().__init__(pem, scripts)

    def _talk(self, connection):
        if connection.recv(4, socket.MSG_PEEK) != b"HEAD":
            self.probed.wait(20)
            super()._talk(connection)
            return
        with connection:
            connection.sendall(answer(b"The plain HTTP request was sent to HTTPS port", status="400 Bad Request"))
        self.probed.set()


def test_a_server_of_https_that_is_slow_to_shake_hands_is_waited_for(pem):
    """Its 400 to plain http is no sign that it speaks that."""
    trusting = WatchedTransport(ssl.create_default_context(cafile=pem))
    with closing(SlowTls(pem, [HELLO])) as server, server.client(transport=trusting, connect_timeout=60) as client:
        assert client.complete("a").text == "Hello"
        assert server.probed.is_set()


def test_a_missing_certificate_file_is_a_configuration_error(tls, tmp_path):
    """A variable that names a file which is not there gives an error of the tree, not a bare one."""
    code = (
        "import sys; from completions_magic import Client, CompletionsError\n"
        "try: Client(base_url=sys.argv[1], model='m').complete('a')\n"
        "except CompletionsError as error: print('kind', error.kind)\n"
    )
    environment = {"SSL_CERT_FILE": str(tmp_path / "missing.pem"), "PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code, tls.base_url], env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.returncode) == ("kind config\n", 0), ran.stderr


# ---------------------------------------------------------------- where a key goes


def authorization(server):
    """Return the Authorization headers that the server heard."""
    return [heard.headers.get("authorization") for heard in server.heard]


def test_a_key_is_sent_as_a_bearer_token(server, keyed):
    """The key of the profile's variable goes to the profile's origin, in the one header that is for it."""
    server.scripts = [HELLO]
    with keyed() as client:
        client.complete("a")
    heard = server.heard[0]
    assert heard.headers.pop("authorization") == f"Bearer {KEY}"
    assert leaks(f"{heard.path} {heard.headers} {heard.body!r}") == []


def test_the_key_of_the_environment_is_not_sent_to_a_base_url_that_is_given(server, monkeypatch):
    """OPENAI_API_KEY stays here unless it is bound to the address."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.scripts = [HELLO]
    with Client(base_url=server.base_url, model="m") as client:
        client.complete("a")
    assert authorization(server) == [None]


def test_the_key_of_the_environment_is_not_sent_beside_another_origin(server, elsewhere, monkeypatch):
    """A key that belongs to OPENAI_BASE_URL does not go to a base URL of another port."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", elsewhere.base_url)
    server.scripts = [HELLO]
    with Client(base_url=server.base_url, model="m") as client:
        client.complete("a")
    assert authorization(server) == [None]


def test_the_key_of_the_environment_goes_to_the_base_url_of_the_environment(server, monkeypatch):
    """OPENAI_API_KEY belongs to OPENAI_BASE_URL."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    server.scripts = [HELLO]
    with Client(model="m") as client:
        client.complete("a")
    assert authorization(server) == [f"Bearer {KEY}"]


def test_a_key_that_is_bound_to_a_base_url_is_sent_there(server, monkeypatch):
    """--api-key-env beside --base-url is the consent."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.scripts = [HELLO]
    with Client(choose_profile(base_url=server.base_url, api_key_env="OPENAI_API_KEY", model="m")) as client:
        client.complete("a")
    assert authorization(server) == [f"Bearer {KEY}"]


@pytest.mark.parametrize("spelling", [f"{KEY}\n", f"  {KEY}\t", f"{KEY}\r\n"])
def test_blanks_around_a_key_are_dropped(server, monkeypatch, spelling):
    """What a file or a clipboard adds is not sent."""
    monkeypatch.setenv("SERVER_KEY", spelling)
    server.scripts = [HELLO]
    with Client(Profile("mine", server.base_url, "SERVER_KEY", "m")) as client:
        client.complete("a")
    assert authorization(server) == [f"Bearer {KEY}"]


BAD_KEYS = {
    "a blank inside": f"{KEY[:20]} {KEY[20:]}",
    "a line end inside": f"{KEY}\nX-Evil: 1",
    "smart quotes": f"\u201c{KEY}\u201d",
    "quotes": f'"{KEY}"',
    "an open quote": f"{KEY}'",
    "a control": f"{KEY}\x7f",
    "a letter beyond ASCII": f"{KEY}é",
}


@pytest.mark.parametrize("value", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_that_no_header_takes_is_refused_unseen(server, monkeypatch, value):
    """Nothing is sent, and neither the message nor any frame of the traceback shows it."""
    monkeypatch.setenv("SERVER_KEY", value)
    raised = failure(Profile("mine", server.base_url, "SERVER_KEY", "m"), Client)
    assert type(raised) is ProfileError
    assert "SERVER_KEY" in str(raised)
    assert server.heard == []
    assert leaks(shown(raised)) == []
    assert leaks(verbose(raised)) == []


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_key_that_is_missing_is_asked_for(server, monkeypatch, value):
    """The error names the variable, before anything is sent."""
    monkeypatch.delenv("SERVER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SERVER_KEY", value)
    with pytest.raises(ProfileError, match="SERVER_KEY"):
        Client(Profile("mine", server.base_url, "SERVER_KEY", "m"))


CLEAR = [
    "http://192.0.2.1/v1",
    "http://completions.invalid:8000/v1",
    "HTTP://192.0.2.1/v1",
    "hTTp://192.0.2.1/v1",
    "http://localhost.completions.invalid/v1",
    "http://127.0.0.1.completions.invalid/v1",
    "http://0.0.0.0:8000/v1",
    "http://[2001:db8::1]/v1",
]


@pytest.mark.parametrize("base_url", CLEAR)
def test_a_key_does_not_travel_in_the_clear(base_url):
    """Plain http to another machine is refused with a key, before anything is sent."""
    raised = failure(base_url, lambda base_url: Client(base_url=base_url, api_key=KEY, model="m"))
    assert type(raised) is ProfileError
    assert "TLS" in str(raised)


@pytest.mark.parametrize("base_url", CLEAR)
def test_plain_http_without_a_key_is_allowed(base_url):
    """There is nothing to lose: servers in one's own network have no certificates."""
    Client(base_url=base_url, model="m").close()


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1", "http://127.9.8.7/v1"]
)
def test_a_key_may_go_to_this_machine_in_the_clear(base_url):
    """Loopback needs no TLS."""
    Client(base_url=base_url, api_key=KEY, model="m").close()


def test_a_profile_may_allow_a_key_in_the_clear():
    """allow_http is the consent in words."""
    Client(Profile("lab", "http://192.0.2.1/v1", allow_http=True), api_key=KEY).close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.complete(f"My key is {KEY}, is that right?"),
        lambda client: client.complete(["a", KEY]),
        lambda client: client.complete("a", suffix=KEY),
        lambda client: client.complete("a", stop=[KEY]),
        lambda client: client.complete("a", metadata={"key": KEY}),
        lambda client: client.complete("a", model=KEY),
    ],
    ids=["prompt", "list", "suffix", "stop", "extra", "model"],
)
def test_a_request_that_holds_the_active_key_is_refused(server, keyed, ask):
    """Nothing is sent, and the error does not repeat it."""
    with keyed() as client:
        raised = failure(client, ask)
    assert type(raised) is PromptError
    assert leaks(f"{raised} {raised!r}") == []
    assert server.heard == []


@pytest.mark.parametrize("key", ["sk-abc\\defghijklmnop", 'sk-abc"defghijklmnop'])
def test_a_request_that_holds_a_key_which_json_spells_in_another_way_is_refused(server, key):
    """A backslash or a quote in the key does not hide it."""
    server.scripts = [HELLO]
    with server.client(api_key=key) as client:
        assert type(failure(client, lambda client: client.complete(f"My key is {key}."))) is PromptError
    assert server.heard == []


# ---------------------------------------------------------------- a key that nobody sees


def test_a_key_shows_itself_to_nobody():
    """Repr, str, formats, JSON, copies and containers show nothing; pickling raises TypeError."""
    key = ApiKey(KEY)
    written = [repr(key), str(key), f"{key}", f"{key!r:>60}", repr([key]), repr({key: key}), str(dir(key))]
    written += [repr(copy.copy(key)), repr(copy.deepcopy({"key": key})), json.dumps(key, default=str)]
    assert leaks(" ".join(written)) == []
    assert copy.deepcopy(key).reveal() == KEY
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(key, protocol)
    with pytest.raises(TypeError):
        vars(key)


def test_nothing_that_a_client_is_made_of_shows_its_key(server, keyed):
    """Reprs of the client, its parts, its stream and its answer are without the key."""
    server.scripts = [HELLO]
    with keyed() as client:
        chunks = client.stream("a")
        list(chunks)
        parts = [client, client.profile, client.endpoint, client.endpoint.key, chunks, chunks.request, chunks.partial]
        written = [f"{part!r} {part!s}" for part in parts]
        written += [repr(vars(part)) for part in (client, client.profile, client.endpoint, chunks)]
        written += [client.endpoint.describe_post(), repr(client.identity)]
    assert leaks(" ".join(written)) == []


ECHOES = {
    "JSON": answer({"error": {"message": f"wrong key: {KEY}", "code": KEY}}, status="401 No"),
    "JSON with escapes": answer(
        json.dumps({"error": f"wrong key {KEY}"}).replace("/", "\\/").encode(), status="401 No"
    ),
    "half of it": answer({"error": {"message": f"wrong key: {KEY[:14]}****{KEY[-12:]}"}}, status="401 No"),
    "URL-quoted": answer({"error": {"message": f"no such page: /?key={quote(KEY, safe='')}"}}, status="404 No"),
    "HTML": answer(f"<title>Bearer {KEY}</title>".encode(), status="403 No", kind="text/html"),
    "plain": answer(f"Authorization: Bearer {KEY}".encode(), status="500 No", kind="text/plain"),
    "the reason": answer(b"", status=f"403 {KEY} is not allowed"),
    "a redirect": answer(b"", status="302 Found", headers=f"Location: https://completions.invalid/?key={KEY}\r\n"),
    "the request id": answer({}, status="400 No", headers=f"X-Request-Id: {KEY}\r\n"),
    "the retry": answer({}, status="429 No", headers=f"Retry-After: {KEY}\r\n"),
    "a broken header": f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(),
    "a broken status line": f"{KEY} {KEY}\r\n\r\n".encode(),
    "a broken length": f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(),
    "a broken chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
    "a page": answer(f"<html>{KEY}</html>".encode()),
    "no JSON": answer(f"your key: {KEY}".encode()),
    "other JSON": answer({"authorization": f"Bearer {KEY}"}),
    "a list": answer([KEY, KEY]),
    "an error in a stream": stream([event("Hel"), f'data: {{"error": "{KEY}"}}\n\n'.encode()]),
    "an answer that is cut": stream([event(f"Hel {KEY}")]),
}


@pytest.fixture(params=ECHOES.values(), ids=ECHOES.keys())
def echoed(request, server, keyed):
    """Give the error of a call whose server echoes the key."""
    server.scripts = [request.param]
    with keyed(retries=1) as client:
        return failure(client)


def test_a_key_that_the_server_echoes_in_a_failure_is_masked(echoed):
    """Neither message, fields and partial completion, nor the chain of exceptions holds a piece of it."""
    assert isinstance(echoed, CompletionsError)
    assert leaks("" if echoed.partial is None else json.dumps(echoed.partial.to_dict())) == []
    assert leaks(f"{echoed} {echoed.request_id}") == []
    assert leaks(shown(echoed)) == []


def test_a_key_that_the_server_echoes_in_a_failure_is_in_no_frame(echoed):
    """A verbose traceback shows the locals of every frame that an exception hangs on to."""
    assert leaks(verbose(echoed)) == []


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_in_a_failure_is_not_logged(server, keyed, caplog, echo):
    """The loggers of the HTTP library write heads down at DEBUG."""
    caplog.set_level(logging.DEBUG)
    server.scripts = [echo]
    with keyed(retries=1) as client:
        failure(client)
    assert "send_request_headers" in caplog.text
    assert leaks(caplog.text) == []


def test_a_key_is_not_logged_when_an_earlier_client_that_had_it_is_gone(server, keyed, caplog):
    """Each client's key is masked as long as it is there, whoever else has the same one."""
    caplog.set_level(logging.DEBUG)
    server.scripts = [ECHOES["the reason"]]
    earlier = keyed()
    with keyed() as client:
        del earlier
        gc.collect()
        failure(client)
    assert "send_request_headers" in caplog.text
    assert leaks(caplog.text) == []


SPELLINGS = {
    "raw": KEY,
    "URL-quoted": quote(KEY, safe=""),
    "JSON with escaped slashes": KEY.replace("/", "\\/"),
    "JSON in numbers": "".join(f"\\u{ord(sign):04x}" for sign in KEY),
    "the first half": KEY[:20],
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize(
    "body",
    [
        '{"choices":[{"text":"your key: #.","index":0,"finish_reason":"stop"}]}',
        '{"choices":[{"text":"a","index":0,"finish_reason":"stop","note":"#"}],"id":"#","model":"#","more":["#"]}',
        '{"choices":[{"text":"a","finish_reason":"stop","logprobs":{"tokens":["#"],"top_logprobs":[{"#":-1}]}}]}',
    ],
    ids=["text", "other fields", "logprobs"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_key_that_the_server_echoes_in_an_answer_is_masked(server, keyed, body, spelling, streamed):
    """In every field, however it is spelled: an answer is shown and saved."""
    body = body.replace("#", spelling).encode()
    server.scripts = [stream([b"data: " + body + b"\n\n", DONE]) if streamed else answer(body)]
    with keyed() as client:
        completion = client.complete("a")
    assert completion.finished
    assert leaks(json.dumps(completion.to_dict())) == []


@pytest.mark.parametrize("size", [15, 4])
def test_a_key_that_is_echoed_in_several_chunks_is_masked_in_their_sum(server, keyed, size):
    """Servers stream token by token, so an echo comes in pieces."""
    pieces = [event(KEY[start : start + size]) for start in range(0, len(KEY), size)]
    server.scripts = [stream([*pieces, event(" it is", reason="stop"), DONE])]
    with keyed() as client:
        completion = client.complete("a")
    assert completion.text.endswith(" it is")
    assert leaks(completion.text) == []


def test_a_mask_shows_nothing_of_the_key(server, keyed):
    """What stands in its place is the same for every key, and the text around it is whole."""
    server.scripts = [stream([event(f"<{KEY}>", reason="stop"), DONE])]
    with keyed() as client:
        assert client.complete("a").text == "<[key]>"


def test_a_log_at_debug_shows_no_key(server, keyed, caplog):
    """A run with retries, a stream, a header that echoes the key, and a list of models writes no piece of it."""
    caplog.set_level(logging.DEBUG)
    echo = f"X-Echo: Bearer {KEY}\r\n"
    server.scripts = [answer({}, status="503 Busy", headers=echo), HELLO, answer({"data": []}, headers=echo)]
    with keyed() as client:
        client.complete("a")
        client.models()
    assert "503" in caplog.text
    assert leaks(caplog.text) == []


def hang_up(connection):
    """Close without an answer."""


def interrupt(server):
    """Return a script that presses Ctrl-C while the client waits for the head."""

    def script(connection):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        server.wait_until_gone(connection)

    return script


PHASES = {
    "no answer": lambda _: hang_up,
    "silence": lambda server: server.wait_until_gone,
    "a cut": lambda _: stream([event("Hel")]),
    "a broken cut": lambda _: stream_head() + piece(event("Hel")) + b"zz\r\n",
    "a refusal": lambda _: answer({"error": "no"}, status="400 Bad Request"),
    "an interrupt": interrupt,
}


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES.keys())
@pytest.mark.parametrize("ask", [lambda client: client.complete("a"), Client.models], ids=["complete", "models"])
def test_a_failure_in_any_phase_shows_no_key(server, keyed, phase, ask):
    """Not in the message, not in the chain, not in the locals of any frame, of ours or of the HTTP library."""
    server.scripts = [phase(server)]
    # Time enough for the interrupt to come before the end of the silence, and not after it into the test.
    with keyed(timeout=30.0 if phase is PHASES["an interrupt"] else 0.3, retries=0) as client:
        raised = failure(client, ask)
    assert isinstance(raised, (CompletionsError, KeyboardInterrupt))
    assert leaks(shown(raised) + verbose(raised)) == []
    if isinstance(raised, KeyboardInterrupt):
        # Where in the HTTP library it strikes is chance, and some of those frames know the headers.
        assert "httpcore" not in verbose(raised)


def test_a_port_that_nobody_listens_on_shows_no_key(closed_port, keyed):
    """Where no connection was made there is nothing to see either."""
    with Client(Profile("gone", f"http://127.0.0.1:{closed_port}/v1", "SERVER_KEY", "m"), retries=0) as client:
        raised = failure(client)
    assert raised.kind == "connect"
    assert leaks(shown(raised) + verbose(raised)) == []


def test_an_interrupt_is_shown_on_one_line(server, keyed):
    """The person sees that it was interrupted, not the frames of the transport."""
    server.scripts = [interrupt(server)]
    with keyed() as client:
        raised = failure(client)
    assert type(raised) is Interrupted
    assert raised._render_traceback_() == ["Interrupted"]


# ---------------------------------------------------------------- proxies

PROXIES = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]


@pytest.mark.parametrize("variable", PROXIES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_does_not_hear_of_this_machine(server, elsewhere, monkeypatch, variable, host):
    """Proxy variables do not apply to loopback."""
    monkeypatch.setenv(variable, elsewhere.origin)
    server.scripts = [HELLO]
    with Client(base_url=f"http://{host}:{server.port}/v1", model="m") as client:
        assert client.complete("a").text == "Hello"
    assert elsewhere.heard == []


@pytest.mark.parametrize("variable", PROXIES)
def test_a_proxy_is_asked_for_other_machines(elsewhere, monkeypatch, variable):
    """Proxy variables apply to all other hosts."""
    monkeypatch.setenv(variable, elsewhere.origin)
    with Client(base_url="http://completions.invalid/v1", model="m") as client:
        assert client.complete("a").text == "Hello"
    assert elsewhere.heard[0].path == "http://completions.invalid/v1/completions"


def test_a_proxy_that_refuses_a_tunnel_is_a_failed_connection(elsewhere, monkeypatch):
    """It hears the host, never the key."""
    monkeypatch.setenv("HTTPS_PROXY", elsewhere.origin)
    elsewhere.scripts = [answer(b"", status="407 Proxy Authentication Required")]
    with Client(base_url="https://completions.invalid/v1", api_key=KEY, model="m", retries=0) as client:
        raised = failure(client)
    assert raised.kind == "connect"
    assert (elsewhere.heard[0].method, elsewhere.heard[0].path) == ("CONNECT", "completions.invalid:443")
    assert leaks(f"{elsewhere.heard} {shown(raised)}") == []


def test_a_failure_at_a_proxy_names_it_without_its_password(elsewhere, monkeypatch, closed_port):
    """Whose address is wrong, or who refuses, is seen from the line."""
    elsewhere.scripts = [answer(b"", status="407 Proxy Authentication Required")]
    for port, words in ((elsewhere.port, "407 Proxy"), (closed_port, "refused")):
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:s3same@127.0.0.1:{port}")
        with Client(base_url="https://completions.invalid/v1", model="m", retries=0) as client:
            said = str(failure(client))
        assert f"through the proxy http://127.0.0.1:{port}" in said
        assert words in said
        assert "s3same" not in said


def test_a_proxy_whose_name_is_none_is_an_error_of_the_tree(monkeypatch):
    """A name with an empty part is refused by the look-up in a way of its own."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy..invalid:3128")
    with Client(base_url="http://completions.invalid/v1", model="m", retries=0) as client:
        assert failure(client).kind == "connect"


SILENT_PROXIES = {
    "before a tunnel": ("https", b""),
    "in the head of a tunnel": ("https", b"HTTP/1.1 200 OK\r\n"),
    "within a tunnel": ("https", b"HTTP/1.1 200 OK\r\n\r\n"),
    "before an answer": ("http", b""),
    "in an answer's head": ("http", b"HTTP/1.1 200 OK\r\n"),
}


@pytest.mark.parametrize(("scheme", "said"), SILENT_PROXIES.values(), ids=SILENT_PROXIES.keys())
def test_stop_is_heard_while_a_proxy_is_silent(elsewhere, monkeypatch, scheme, said):
    """In another thread too, where no signal comes."""
    asked = threading.Event()

    def silent(connection):
        connection.sendall(said)
        asked.set()
        elsewhere.wait_until_gone(connection)

    elsewhere.scripts = [silent]
    monkeypatch.setenv(f"{scheme}_proxy", elsewhere.origin)
    with Client(base_url=f"{scheme}://completions.invalid/v1", model="m", connect_timeout=30, timeout=30) as client:
        chunks = client.stream("a")
        reading = threading.Thread(target=list, args=(chunks,), daemon=True)
        reading.start()
        assert asked.wait(5)
        time.sleep(0.2)  # until what was said has been read
        chunks.stop()
        assert elsewhere.gone.wait(2)
        reading.join(2)
        assert not reading.is_alive()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_trickles_is_waited_for_no_longer(elsewhere, monkeypatch, scheme):
    """Every byte of a head would begin the HTTP library's own timeout anew."""
    elsewhere.scripts = [says(again(b"H", every=0.1, seconds=10))]
    monkeypatch.setenv(f"{scheme}_proxy", elsewhere.origin)
    with Client(base_url=f"{scheme}://completions.invalid/v1", model="m", timeout=0.5, retries=0) as client:
        began = time.monotonic()
        assert failure(client).kind == "timeout"
    assert time.monotonic() - began < 3


class Tunnel(ScriptedServer):
    """A proxy that makes tunnels, whatever host they are to, to one port of this machine."""

    def __init__(self, port):
        self.to = port
        super().__init__([self.join])

    def join(self, connection):
        """Pass on what comes from either side."""
        # A socket that the test has closed meanwhile has no descriptor to wait for.
        with socket.create_connection(("127.0.0.1", self.to)) as server, suppress(ValueError):
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {connection: server, server: connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    received = end.recv(65536)
                    if not received:
                        return
                    ends[end].sendall(received)


def tunnelled(tunnel, pem, host="localhost"):
    """Return a client that asks through a tunnel, as it does where a variable names it."""
    transport = ProxiedTransport(ssl.create_default_context(cafile=pem), httpx.Proxy(tunnel.origin))
    return Client(base_url=f"https://{host}:{tunnel.to}/v1", api_key=KEY, model="m", retries=0, transport=transport)


def test_a_tunnel_is_kept_and_hears_no_key(tls, pem):
    """The certificate is verified to the end of it, and the next request goes the same way."""
    with closing(Tunnel(tls.port)) as tunnel:
        with tunnelled(tunnel, pem) as client:
            assert [client.complete("a").text for _ in range(2)] == ["Hello", "Hello"]
        with tunnelled(tunnel, pem, "completions.invalid") as client:
            assert failure(client).kind == "tls"
    assert [heard.path for heard in tunnel.heard] == [f"localhost:{tls.port}", f"completions.invalid:{tls.port}"]
    assert leaks(str(tunnel.heard)) == []
    assert [heard.headers["authorization"] for heard in tls.heard] == [f"Bearer {KEY}"] * 2


def test_a_proxy_is_not_asked_whether_it_speaks_http(pem):
    """It does, and that says nothing of the server behind it."""
    with closing(PlainServer()) as plain, closing(Tunnel(plain.port)) as tunnel, tunnelled(tunnel, pem) as client:
        raised = failure(client)
        assert [heard.method for heard in tunnel.heard] == ["CONNECT"]
    assert raised.kind == "tls"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1", "http://127.0.0.1:no", "//"])
def test_a_proxy_that_cannot_be_used_is_an_error_of_the_tree(monkeypatch, proxy):
    """A variable that the HTTP library cannot use gives one of our errors, not a bare one."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with Client(base_url="http://completions.invalid/v1", model="m", retries=0) as client:
        assert isinstance(failure(client), CompletionsError)
