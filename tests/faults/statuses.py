"""Refusals: every status, in the shapes and encodings that servers and proxies use, with and without the key."""

import gzip
import json
from email.utils import formatdate
from urllib.parse import quote

from conftest import piece, says

from completions_magic.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RedirectError,
    ServerError,
)

from .event_streams import HELLO, body, pieces
from .fault import KEY, Fault, bad, good

REASONS = {
    400: ("Bad Request", BadRequestError),
    401: ("Unauthorized", AuthenticationError),
    402: ("Payment Required", PermissionDeniedError),
    403: ("Forbidden", PermissionDeniedError),
    404: ("Not Found", NotFoundError),
    405: ("Method Not Allowed", APIStatusError),
    408: ("Request Timeout", ServerError),
    409: ("Conflict", ServerError),
    413: ("Content Too Large", BadRequestError),
    418: ("I'm a teapot", APIStatusError),
    422: ("Unprocessable Content", BadRequestError),
    429: ("Too Many Requests", RateLimitError),
    500: ("Internal Server Error", ServerError),
    502: ("Bad Gateway", ServerError),
    503: ("Service Unavailable", ServerError),
    504: ("Gateway Timeout", ServerError),
    529: ("Overloaded", ServerError),
}
AGAIN = (408, 409, 429, 500, 502, 503, 504, 529)
SAID = "top_k is unknown"


def openai(said: str, **more) -> bytes:
    """Return an error as OpenAI writes it."""
    return json.dumps({"error": {"message": said, "type": "invalid_request_error", "param": None, **more}}).encode()


def vllm(said: str) -> bytes:
    """Return an error as vLLM has written it."""
    return json.dumps({"object": "error", "message": said, "type": "BadRequestError", "code": 400}).encode()


def fastapi(said: str) -> bytes:
    """Return an error as FastAPI writes it."""
    return json.dumps({"detail": [{"loc": ["body", "top_k"], "msg": said, "type": "extra_forbidden"}]}).encode()


def page(said: str) -> bytes:
    """Return an error as a proxy writes it."""
    return f"<html>\r\n<head><title>{said}</title></head>\r\n<body><center><h1>no</h1></center></body></html>".encode()


SHAPES = {"OpenAI": openai, "vLLM": vllm, "FastAPI": fastapi, "plain": str.encode, "HTML": page}


def refusal(status: int, content: bytes = b"", *headers: str) -> bytes:
    """Return an answer that refuses."""
    return body(content, *headers, status=f"{status} {REASONS[status][0]}")


def refused(
    name: str, status: int, content: bytes, *words: str, headers: tuple[str, ...] = (), heard: int = 0
) -> Fault:
    """Return a case of a refusal: its status' own error, asked again only where that may help."""
    again = 3 if status in AGAIN else 1
    return bad(
        f"{status}, {name}",
        refusal(status, content, *headers),
        REASONS[status][1],
        str(status),
        *words,
        status=status,
        heard=heard or again,
    )


EVERY = [
    refused(f"{shape} {kind}", status, write(SAID), SAID, headers=(f"Content-Type: {kind}",))
    for number, status in enumerate(REASONS)
    for place, (shape, write) in enumerate(SHAPES.items())
    for kind in ("text/html" if shape == "HTML" else "application/json",)
    if status in (400, 422, 500) or (number + place) % 3 == 0
]

BODIES = [
    refused("no body", 400, b""),
    refused("no body", 500, b""),
    refused("bytes", 400, bytes(range(256))),
    refused("null", 400, b"null"),
    refused("an empty object", 400, b"{}"),
    refused("an error without words", 400, b'{"error":{}}'),
    refused(
        "which parameter", 400, openai("must be at most 2", param="temperature"), "must be at most 2", "temperature"
    ),
    refused(
        "a list of errors",
        422,
        b'{"detail":[{"loc":["body","a"],"msg":"no"},{"loc":["body","b"],"msg":"neither"}]}',
        "a: no; b: neither",
    ),
    refused(
        "which model",
        404,
        openai("The model 'm' does not exist"),
        "The model 'm' does not exist",
        "%completions models",
    ),
    refused("no such route", 404, b'{"detail":"Not Found"}', "Not Found", "%completions models"),
    refused("a key is wanted", 401, openai("no"), "the key"),
    refused("terminal sequences", 400, openai("\x1b[2Jred\x07"), "red"),
    refused("several lines", 400, openai("one\ntwo\r\nthree\u2028four"), "one", "four"),
    refused("1 MB of words", 400, openai("long " * 200_000), "long"),
    refused("1 MB of HTML", 502, page("down") + b"<p>" * 350_000, "down"),
    refused("nested too deep", 400, b"[" * 100_000),
    refused("JSON that is cut", 400, openai(SAID)[:60], "message"),
    refused("a body in UTF-16", 400, openai(SAID).decode().encode("utf-16"), SAID),
    refused("a body in UTF-16, without a word", 400, openai(SAID).decode().encode("utf-16-le"), SAID),
    refused("a body in UTF-32", 400, openai(SAID).decode().encode("utf-32"), SAID),
    refused(
        "a body in UTF-16, by name",
        400,
        SAID.encode("utf-16-le"),
        SAID,
        headers=("Content-Type: text/plain; charset=utf-16le",),
    ),
    refused(
        "a body in Latin-1, by name",
        400,
        "déjà vu".encode("latin-1"),
        "déjà vu",
        headers=("Content-Type: text/plain; charset=iso-8859-1",),
    ),
    refused(
        "a page in Shift JIS, by name",
        502,
        page("接続").decode().encode("shift-jis"),
        "接続",
        headers=("Content-Type: text/html; charset=Shift_JIS",),
    ),
    refused("a body in Latin-1, without a word", 400, "déjà vu".encode("latin-1"), "d\ufffdj\ufffd vu"),
    refused(
        "a charset that nobody knows",
        400,
        openai(SAID),
        SAID,
        headers=("Content-Type: application/json; charset=x-none",),
    ),
    refused(
        "a charset that is no text", 400, openai(SAID), SAID, headers=("Content-Type: application/json; charset=zlib",)
    ),
    refused("a body with a BOM", 400, b"\xef\xbb\xbf" + openai(SAID), SAID),
    refused("gzip", 400, gzip.compress(openai(SAID)), SAID, headers=("Content-Encoding: gzip",)),
    refused("gzip that is none", 400, openai(SAID), headers=("Content-Encoding: gzip",)),
    refused("br", 400, b"\x8b\x02\x80abc\x03", headers=("Content-Encoding: br",)),
    refused(
        "as an event stream",
        500,
        b"data: " + openai(SAID) + b"\n\n",
        SAID,
        headers=("Content-Type: text/event-stream",),
    ),
    bad(
        "400 and a body that never comes",
        says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\n"),
        BadRequestError,
        "400",
        status=400,
    ),
    bad(
        "400 and a body that is cut",
        says(b"HTTP/1.1 400 No\r\nContent-Length: 99\r\n\r\n" + SAID.encode()),
        BadRequestError,
        SAID,
        status=400,
    ),
    bad(
        "400 and broken chunks",
        says(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n" + piece(SAID.encode()), b"zz\r\n"),
        BadRequestError,
        SAID,
        status=400,
    ),
    bad(
        "400 without a reason", says(b"HTTP/1.1 400\r\n\r\n" + SAID.encode()), BadRequestError, "400", SAID, status=400
    ),
    bad("a status beyond all lists", body(b"", status="799 What"), ServerError, "799", status=799, heard=3),
    bad(
        "520, a proxy's own",
        body(page("Web server returned an unknown error"), status="520 "),
        ServerError,
        "520",
        "unknown error",
        status=520,
        heard=3,
    ),
]

KEYS = [
    refused("the key in JSON", 401, openai(f"Incorrect API key provided: {KEY}"), "[key]"),
    refused("the key in plain words", 401, f"bad key {KEY}".encode(), "[key]"),
    refused("the key in HTML", 403, page(f"bad key {KEY}"), "[key]"),
    refused("the key, quoted for a URL", 400, f"/v1?key={quote(KEY, safe='')}".encode(), "[key]"),
    refused(
        "the key, escaped", 400, openai("|").replace(b"|", b"".join(b"\\u%04x" % ord(sign) for sign in KEY)), "[key]"
    ),
    refused("the key in UTF-16", 400, f"bad key {KEY}".encode("utf-16"), "[key]"),
    refused("half of the key", 401, openai(f"bad key {KEY[:20]}…"), "[key]"),
    refused("the key in a header", 401, openai("no"), headers=(f"X-Request-Id: {KEY}", f"X-Echo: {KEY}")),
    bad("the key in the reason", body(b"", status=f"401 {KEY}"), AuthenticationError, "[key]", status=401),
    bad(
        "the key in a redirect",
        body(b"", f"Location: http://other.example/?{KEY}", status="302 Found"),
        RedirectError,
        "[key]",
        status=302,
    ),
    refused(
        "the whole request comes back", 400, f"POST /v1/completions\nAuthorization: Bearer {KEY}\n".encode(), "[key]"
    ),
]

WAITS = [
    good("429, then an answer", refusal(429, b"", "Retry-After: 0"), pieces(HELLO), heard=2),
    good(
        "429 and a wait in milliseconds, then an answer",
        refusal(429, b"", "retry-after-ms: 50"),
        pieces(HELLO),
        heard=2,
    ),
    good(
        "503 and a date, then an answer",
        refusal(503, b"", f"Retry-After: {formatdate(usegmt=True)}"),
        pieces(HELLO),
        heard=2,
    ),
    good("503 twice, then an answer", refusal(503), refusal(503), pieces(HELLO), heard=3),
    good("408, then an answer", refusal(408), pieces(HELLO), heard=2),
    good("409, then an answer", refusal(409), pieces(HELLO), heard=2),
    good("a wait that nobody can read, then an answer", refusal(429, b"", "Retry-After: soon"), pieces(HELLO), heard=2),
    good(
        "400 that is to be asked again, then an answer",
        refusal(400, b"", "x-should-retry: true"),
        pieces(HELLO),
        heard=2,
    ),
    refused("not to be asked again", 503, openai(SAID), SAID, headers=("x-should-retry: false",), heard=1),
    refused(
        "not to be asked again", 429, openai(SAID), SAID, headers=("X-Should-Retry: FALSE", "Retry-After: 0"), heard=1
    ),
    refused("to be asked again in an hour", 503, openai(SAID), "3,600 s", headers=("Retry-After: 3600",), heard=1),
    refused("to be asked again never", 503, openai(SAID), headers=("Retry-After: inf",), heard=1),
]

STATUSES = [*EVERY, *BODIES, *KEYS, *WAITS]
