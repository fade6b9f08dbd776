"""Connections that are not made, stall, break or lead elsewhere."""

from conftest import DONE, END, again, byte_by_byte, event, piece, reset, says, stream_head

from completions_magic.errors import (
    APIConnectionError,
    APITimeoutError,
    DecodeError,
    RedirectError,
    StreamError,
)

from .event_streams import HEL, HELLO, LO, STOP, body, joined, pieces
from .fault import Fault, Script, bad, good

QUICK = {"timeout": 0.1, "first_token_timeout": 5.0, "retries": 0}
FIRST = {"timeout": 5.0, "first_token_timeout": 0.1, "retries": 0}
SMALL = b'data: {"choices":[],"id":"a"}\n\n'


def hang(*parts) -> Script:
    """Return a script that sends its parts, and then nothing until the client has gone."""
    return says(*parts, lambda connection: connection.recv(1))


def silent(name: str, script: Script, *words: str, partial: str | tuple[str, ...] = (), **settings) -> Fault:
    """Return a case of a server that stops sending: a timeout names its option."""
    # On a busy machine so short a patience may be over before the server has read the request.
    timeouts = {**(QUICK if partial else FIRST), **settings}
    return bad(name, script, APITimeoutError, *words, partial=partial, heard=None, **timeouts)


def cut(name: str, script: Script, *words: str, partial: str | tuple[str, ...] = "Hel") -> Fault:
    """Return a case of a connection that breaks after some text: never asked again."""
    return bad(name, script, StreamError, *words, partial=partial)


def broken(name: str, script: Script, *words: str) -> Fault:
    """Return a case of an answer that is no HTTP: asked again, for nothing of an answer has come."""
    return bad(name, script, APIConnectionError, *words, heard=3)


def moved(status: str, location: str | None) -> Fault:
    """Return a case of a redirect, which is never followed."""
    headers = () if location is None else (f"Location: {location}",)
    words = () if location is None else (location,)
    return bad(
        f"{status} to {location}", body(b"", *headers, status=status), RedirectError, *words, status=int(status[:3])
    )


CONNECTING = [
    bad("nobody listens", None, APIConnectionError, "cannot be reached", address="closed port", heard=0),
    bad(
        "a black hole",
        None,
        APITimeoutError,
        "--connect-timeout",
        address="black hole",
        heard=0,
        connect_timeout=0.1,
        retries=0,
    ),
    bad(
        "a certificate of another host",
        None,
        APIConnectionError,
        "verified",
        "not valid for",
        address="TLS, other host",
        heard=0,
    ),
    bad(
        "a certificate that has expired",
        None,
        APIConnectionError,
        "verified",
        "expired",
        address="TLS, expired",
        heard=0,
    ),
    bad(
        "a certificate that signs itself", None, APIConnectionError, "self-signed", address="TLS, self-signed", heard=0
    ),
    bad(
        "a certificate of an unknown authority",
        None,
        APIConnectionError,
        "unable to get",
        address="TLS, unknown authority",
        heard=0,
    ),
    bad("TLS to a server without it", None, APIConnectionError, "try http://", address="TLS to plain http", heard=0),
    bad(
        "plain http to a server with TLS",
        None,
        APIConnectionError,
        "closed the connection",
        address="plain http to TLS",
        heard=0,
    ),
    Fault("a certificate that is right", (), ("Hello",), address="TLS", heard=0),
]

SILENT = [
    silent("no head", hang(), "--first-token-timeout"),
    silent("a head and no body", hang(stream_head()), "--first-token-timeout"),
    silent("half a head", hang(b"HTTP/1.1 200 OK\r\nContent-"), "--first-token-timeout"),
    silent("interim answers for ever", again(b"HTTP/1.1 102 Processing\r\n\r\n", every=0.05), "--first-token-timeout"),
    silent(
        "a head, one byte at a time",
        byte_by_byte(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 60, framed=False),
        "--first-token-timeout",
    ),
    silent("comments for ever", says(stream_head(), again(piece(b": ping\n\n"), every=0.05)), "--first-token-timeout"),
    silent("blank lines for ever", says(stream_head(), again(piece(b"\n\n"), every=0.05)), "--first-token-timeout"),
    silent("empty data for ever", says(stream_head(), again(piece(b"data:\n\n"), every=0.05)), "--first-token-timeout"),
    silent(
        "events without choices for ever", says(stream_head(), again(piece(SMALL), every=0.05)), "--first-token-timeout"
    ),
    silent(
        "JSON, one byte at a time",
        says(stream_head("application/json"), byte_by_byte(b'{"choices":[' + b" " * 90)),
        "--first-token-timeout",
    ),
    silent("a stall after the first event", hang(stream_head(), piece(HEL)), "--timeout", partial="Hel"),
    silent("a stall within an event", hang(stream_head(), piece(HEL), piece(LO[:20])), "--timeout", partial="Hel"),
    silent(
        "a stall within an HTTP chunk", hang(stream_head(), piece(HEL), b"ff\r\ndata: "), "--timeout", partial="Hel"
    ),
    silent(
        "a stall within a length",
        hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + HEL),
        "--timeout",
        partial="Hel",
    ),
    silent(
        "comments for ever after a text",
        says(stream_head(), piece(HEL), again(piece(b": ping\n\n"), every=0.05)),
        "--timeout",
        partial="Hel",
    ),
    silent(
        "events without choices for ever after a text",
        says(stream_head(), piece(HEL), again(piece(SMALL), every=0.05)),
        "--timeout",
        partial="Hel",
    ),
    silent(
        "an event, one byte at a time",
        says(stream_head(), piece(HEL), byte_by_byte(event("x"))),
        "--timeout",
        partial="Hel",
    ),
    silent(
        "a first token that is late",
        hang(stream_head()),
        "0.2 s",
        "--first-token-timeout",
        timeout=30.0,
        first_token_timeout=0.2,
    ),
    Fault(
        "a stall after the finish_reason, before [DONE]",
        (hang(stream_head(), piece(HEL + LO + STOP)),),
        ("Hello",),
        settings=QUICK,
    ),
    good("a reset after the finish_reason", says(stream_head(), piece(HEL + LO + STOP), reset)),
    good("an end that never comes after [DONE]", hang(stream_head(), piece(HELLO))),
    good("one byte at a time, in time", joined(stream_head(), *(piece(bytes([byte])) for byte in HELLO), END)),
]

BREAKING = [
    broken("hung up without an answer", says(), "without an answer"),
    broken("a reset without an answer", reset),
    broken("hung up within the head", says(b"HTTP/1.1 200 OK\r\nContent-Ty")),
    bad("hung up after the head", says(stream_head()), StreamError, "cut the answer off", heard=3),
    bad("a reset after the head", says(stream_head(), reset), StreamError, "cut the answer off", heard=3),
    cut("a reset within the stream", says(stream_head(), piece(HEL), reset), "cut the answer off"),
    cut("hung up within the stream", says(stream_head(), piece(HEL)), "cut the answer off"),
    cut("hung up within an event", says(stream_head(), piece(HEL + LO[:30])), "cut the answer off"),
    cut("hung up within an HTTP chunk", says(stream_head(), piece(HEL), b"ff\r\ndata: "), "cut the answer off"),
    cut("closed before the promised length", says(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + HEL)),
    cut("closed without an end", says(b"HTTP/1.1 200 OK\r\n\r\n" + HEL)),
    cut("a chunk size that is none", says(stream_head(), piece(HEL), b"zz\r\n")),
    cut("a chunk size below zero", says(stream_head(), piece(HEL), b"-5\r\nhello\r\n")),
    cut("a chunk size beyond all bounds", says(stream_head(), piece(HEL), b"f" * 40 + b"\r\n")),
    cut("a chunk longer than it says", says(stream_head(), piece(HEL), b"3\r\nhello\r\n")),
    # What follows is still in the connection, which another request may find unusable, and is asked once more.
    bad(
        "a length too short",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + HELLO,
        DecodeError,
        "not JSON",
        heard=None,
    ),
    bad(
        "a JSON body that is cut",
        says(b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"choices":['),
        StreamError,
        "cut the answer off",
        heard=3,
    ),
]

NO_HTTP = [
    broken("a status line that is none", says(b"HTTP/1.1 what\r\n\r\n")),
    broken("a body without a head", says(HELLO)),
    broken("an SSH server", says(b"SSH-2.0-OpenSSH_9.9\r\n")),
    broken("bytes instead of a head", says(bytes(range(256)) * 4)),
    broken("HTTP/2 without being asked", says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18))),
    broken("a length that is none", says(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + HELLO)),
    broken("a length below zero", says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + HELLO)),
    broken("two lengths", says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + HELLO)),
    broken("a header without a colon", says(b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n" + HELLO)),
    broken("a header with NUL", says(b"HTTP/1.1 200 OK\r\nX-Nul: a\x00b\r\n\r\n" + HELLO)),
    broken("one header of 1 MB", says(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2**20 + b"\r\n\r\n")),
    broken("100,000 headers", says(b"HTTP/1.1 200 OK\r\n" + b"X-More: x\r\n" * 100_000 + b"\r\n")),
    broken("a switch of protocols", says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")),
    broken("a transfer coding that nobody knows", says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: snappy\r\n\r\nabc")),
    good("a head with line feeds alone", says(b"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n" + HELLO)),
    good("a status without a reason", says(b"HTTP/1.1 200\r\nContent-Type: text/event-stream\r\n\r\n" + HELLO)),
    good("a reason in Latin-1", says(b"HTTP/1.1 200 Tr\xe8s bien\r\n\r\n" + HELLO)),
    good("a folded header", says(b"HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\n\r\n" + HELLO)),
    good(
        "a length beside chunks",
        joined(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + piece(HELLO) + END),
    ),
    good("206 Partial Content", body(HELLO, status="206 Partial Content")),
    good("201 Created", body(HELLO, status="201 Created")),
    good("a cookie", body(HELLO, "Set-Cookie: a=b; HttpOnly")),
    good("hung up once, then an answer", says(), pieces(HEL, LO, STOP, DONE), heard=2),
    good("cut once before the first event, then an answer", says(stream_head()), pieces(HEL, LO, STOP, DONE), heard=2),
]

REDIRECTS = [
    moved("301 Moved Permanently", "/v2/completions"),
    moved("302 Found", "http://127.0.0.1:9/v1/completions"),
    moved("303 See Other", "/v1/results/7"),
    moved("307 Temporary Redirect", "http://other.example/v1/completions"),
    moved("308 Permanent Redirect", "https://127.0.0.1/v1/completions"),
    moved("307 Temporary Redirect", "//other.example/v1/completions"),
    moved("307 Temporary Redirect", "?again"),
    moved("308 Permanent Redirect", "ftp://other.example/"),
    moved("302 Found", "javascript:alert(1)"),
    moved("300 Multiple Choices", None),
    moved("304 Not Modified", None),
    moved("302 Found", None),
]

TRANSPORTS = [*CONNECTING, *SILENT, *BREAKING, *NO_HTTP, *REDIRECTS]
