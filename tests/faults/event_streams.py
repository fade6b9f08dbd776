"""Event streams as servers and proxies write them."""

import gzip
import json
import zlib

from conftest import DONE, END, answer, event, piece, says, stream, stream_head

from completions_magic.errors import AnswerError, DecodeError, StreamError, TooLargeError

from .fault import Fault, bad, good

HEL, LO, STOP = event("Hel"), event("lo"), event(reason="stop")
HELLO = HEL + LO + STOP + DONE
BOM = b"\xef\xbb\xbf"


def pieces(*parts: bytes) -> bytes:
    """Return a chunked stream of these parts, each an HTTP chunk."""
    return stream(parts)


def joined(*parts: bytes) -> bytes:
    """Return an answer after which the connection is kept."""
    return b"".join(parts)


def single(body: bytes) -> bytes:
    """Return a chunked stream whose every byte is an HTTP chunk of its own."""
    return stream(body[at : at + 1] for at in range(len(body)))


def raw(text: str, **more) -> bytes:
    """Return an event whose text stands as it is, without escapes."""
    choice = {"text": text, "index": 0, "finish_reason": None, **more}
    return b"data: " + json.dumps({"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


def body(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer with a length and exactly these headers."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + content


def compressed(content: bytes, encoding: str, *, kind: str = "text/event-stream") -> bytes:
    """Return a compressed answer, which nobody has asked for."""
    return body(content, f"Content-Type: {kind}", f"Content-Encoding: {encoding}")


def megabytes(before: bytes, after: bytes = b""):
    """Return a script that sends 100 MB of one line."""
    block = piece(b"x" * 2**20)

    def script(connection):
        connection.sendall(stream_head() + piece(before))
        for _ in range(100):
            connection.sendall(block)
        connection.sendall(piece(after) + END)

    return script


def multiline(end: bytes) -> bytes:
    """Return an event whose JSON is spread over several lines of data."""
    lines = json.dumps({"choices": [{"text": "Hello", "index": 0, "finish_reason": "stop"}]}, indent=1).encode()
    return b"".join(b"data: " + line + end for line in lines.split(b"\n")) + end


def splits(sign: str) -> list[Fault]:
    """Return a case for every place at which the bytes of a character can be split."""
    whole = sign.encode()
    told = raw(f"<{sign}>") + STOP + DONE
    start = told.index(whole)
    return [
        good(
            f"{sign!a} split after {at} of {len(whole)} bytes",
            pieces(told[: start + at], told[start + at :]),
            text=f"<{sign}>",
        )
        for at in range(1, len(whole))
    ]


LINES = [
    good("LF", pieces(HELLO)),
    good("CRLF", pieces(HELLO.replace(b"\n", b"\r\n"))),
    good("CR", pieces(HELLO.replace(b"\n", b"\r"))),
    good("ends of all three kinds", pieces(HEL.replace(b"\n", b"\r"), LO.replace(b"\n", b"\r\n"), STOP, DONE)),
    good("a CRLF split between its two", pieces(*HELLO.replace(b"\n", b"\r\n").replace(b"\r", b"\r|").split(b"|"))),
    good("every byte for itself, LF", single(HELLO)),
    good("every byte for itself, CRLF", single(HELLO.replace(b"\n", b"\r\n"))),
    good("every byte for itself, CR", single(HELLO.replace(b"\n", b"\r"))),
    good("blank lines before the first event", pieces(b"\n\r\n\n", HELLO)),
    good("many blank lines between events", pieces(HEL, b"\n" * 99, LO, STOP, DONE)),
    good("BOM", pieces(BOM + HELLO)),
    good("BOM, every byte for itself", single(BOM + HELLO)),
    good("BOM and a comment", pieces(BOM + b": hello\n\n" + HELLO)),
    good("all events in one piece", pieces(HELLO + HELLO)),
    good("the last event without its blank line", pieces(HEL, LO, STOP.rstrip(b"\n"))),
    good("[DONE] without its blank line", pieces(HEL, LO, STOP, b"data: [DONE]")),
    good("[DONE] without any line end, and no finish_reason", pieces(HEL, LO, b"data:[DONE]")),
]

FIELDS = [
    good("data: without a space", pieces(HELLO.replace(b"data: ", b"data:"))),
    good("data: with two spaces", pieces(HELLO.replace(b"data: ", b"data:  "))),
    good("data: with a tab", pieces(HELLO.replace(b"data: ", b"data:\t"))),
    good("data of several lines", pieces(multiline(b"\n"), DONE)),
    good("data of several lines, CRLF", pieces(multiline(b"\r\n"), DONE)),
    good("data of several lines, every byte for itself", single(multiline(b"\r\n") + DONE)),
    good("comments between events", pieces(HEL, b": ping\n\n", LO, b":\n\n", STOP, DONE)),
    good("a comment within an event", pieces(b": one\n" + HEL, LO, b":two\n" + STOP, DONE)),
    good("comments before the first event", pieces(b": OPENROUTER PROCESSING\n\n" * 20, HELLO)),
    good("a comment of 1 MB", pieces(b":" + b"x" * 2**20 + b"\n\n", HELLO)),
    good("fields that nobody knows", pieces(b"event: x\nfoo: bar\nfoo\n" + HEL, b"dat: x\n" + LO, STOP, DONE)),
    good("a name for every event", pieces(*(b"event: completion\n" + one for one in (HEL, LO, STOP, DONE)))),
    good("id and retry beside the data", pieces(*(b"id: 7\nretry: 10\n" + one for one in (HEL, LO, STOP, DONE)))),
    good("events of id alone", pieces(b"id: 1\n\n", HEL, b"id: 2\n\n", LO, STOP, DONE)),
    good("events of retry alone", pieces(b"retry: 3000\n\n", HEL, b"retry: soon\n\n", LO, STOP, DONE)),
    good("events of a name alone", pieces(b"event: ping\n\n", HEL, b"event\n\n", LO, STOP, DONE)),
    good("an id that holds NUL", pieces(b"id: \x00\n" + HEL, LO, STOP, DONE)),
    good("NUL in a comment", pieces(b": \x00\n\n", HEL, LO, STOP, DONE)),
    good("NUL in the text, escaped", pieces(event("a\x00b"), STOP, DONE), text="a\x00b"),
    bad("NUL in the JSON", pieces(HEL, b'data: {"choices":\x00[]}\n\n'), DecodeError, "not JSON", partial="Hel"),
    good("empty data", pieces(b"data:\n\n", HEL, b"data: \n\n", LO, b"data\n\n", STOP, DONE)),
    good("data of blanks", pieces(b"data:   \n\n", HELLO)),
    bad("DATA: in capitals", pieces(HELLO.replace(b"data:", b"DATA:")), DecodeError, "not JSON"),
    bad("data: data:", pieces(HEL, b"data: " + LO), DecodeError, "not JSON", partial="Hel"),
    bad(
        "event: error, an error object",
        pieces(HEL, b'event: error\ndata: {"error": {"message": "out of memory"}}\n\n'),
        AnswerError,
        "out of memory",
        partial="Hel",
    ),
    bad(
        "event: error, plain words",
        pieces(HEL, b"event: error\ndata: out of memory\n\n"),
        DecodeError,
        "out of memory",
        partial="Hel",
    ),
    bad(
        "event: error, first of all",
        pieces(b'event: error\ndata: {"message": "out of memory", "code": 500}\n\n'),
        AnswerError,
        "out of memory",
    ),
    bad(
        "JSON lines under the name of an event stream",
        pieces(b'{"choices":[]}\n{"choices":[]}\n'),
        DecodeError,
        "not JSON",
    ),
]

CHARACTERS = [
    good("U+2028 and U+2029 as they are", pieces(raw("a\u2028b\u2029c"), STOP, DONE), text="a\u2028b\u2029c"),
    good("U+0085, VT and FF", pieces(raw("a\x85b") + event("\x0b\x0c"), STOP, DONE), text="a\x85b\x0b\x0c"),
    good("line ends within the text", pieces(event("a\r\nb\rc\n\n"), STOP, DONE), text="a\r\nb\rc\n\n"),
    good(
        "a text that looks like events", pieces(event("\n\ndata: [DONE]\n\n"), STOP, DONE), text="\n\ndata: [DONE]\n\n"
    ),
    *splits("é"),
    *splits("漢"),
    *splits("🎈"),
    good(
        "a family of seven code points, every byte for itself",
        single(raw("👩‍👩‍👧‍👦") + STOP + DONE),
        text="👩‍👩‍👧‍👦",
    ),
    good("a pair of surrogates in one event", pieces(event("🎈"), STOP, DONE), text="🎈"),
    good(
        "a pair of surrogates split over two events",
        pieces(event("\ud83c"), event("\udf88"), STOP, DONE),
        text="🎈",
    ),
    good("half a pair", pieces(event("a\ud83c"), event("b"), STOP, DONE), text="a\ufffdb"),
    good("the other half", pieces(event("a\udf88b"), STOP, DONE), text="a\ufffdb"),
    good("half a pair at the end", pieces(event("a\ud83c"), STOP, DONE), text="a\ufffd"),
    good("bytes that are not UTF-8", pieces(b'data: {"choices":[{"text":"a\xffb"}]}\n\n', STOP, DONE), text="a\ufffdb"),
]

ENDS = [
    good("no [DONE]", pieces(HEL, LO, STOP)),
    good("no [DONE], the connection closes", says(b"HTTP/1.1 200 OK\r\n\r\n" + HEL + LO + STOP)),
    good("[DONE] and no finish_reason", pieces(HEL, LO, DONE)),
    good("[DONE] among blanks", pieces(HEL, LO, STOP, b"data:   [DONE]  \n\n")),
    good("[DONE] twice", pieces(HEL, LO, STOP, DONE, DONE)),
    good("events after [DONE]", pieces(HEL, LO, STOP, DONE, event("!"))),
    good("rubbish after [DONE]", pieces(HEL, LO, STOP, DONE, b"\x00\xff<html>")),
    good("broken framing after [DONE]", says(stream_head(), piece(HELLO), b"zz\r\n")),
    bad("no end at all", pieces(HEL, LO), StreamError, "cut the answer off", partial="Hello"),
    bad("the end within an event", pieces(HEL, LO[:30]), DecodeError, "not JSON", partial="Hel"),
    bad("[DONE] alone", pieces(DONE), DecodeError, "without any choice"),
    bad("comments and no event", pieces(b": one\n\n: two\n\n"), DecodeError, "without any choice"),
    good(
        "usage in an event of its own",
        pieces(HEL, LO, STOP, b'data: {"choices":[],"usage":{"total_tokens":5}}\n\n', DONE),
    ),
    good("usage null in every event", pieces(event("Hello", usage=None), event(reason="stop", usage=None), DONE)),
    good("usage after the finish_reason and no [DONE]", pieces(HEL, LO, STOP, b'data: {"choices":[],"usage":{}}\n\n')),
    good("a first event without choices", pieces(b'data: {"choices":[],"id":"cmpl-1"}\n\n', HELLO)),
    good("3,000 events", pieces(event("ab") * 3000, STOP, DONE), text="ab" * 3000),
    good("1 MB of text in one event", pieces(event("x" * 2**20), STOP, DONE), text="x" * 2**20),
    bad("one event of 100 MB", megabytes(b'data: {"x":"'), TooLargeError, "larger than"),
    bad("one event of 100 MB after a text", megabytes(HEL + b"data: "), TooLargeError, "larger than", partial="Hel"),
    bad("one line of 100 MB that is no field", megabytes(HEL + b"x"), TooLargeError, "larger than", partial="Hel"),
    bad(
        "a limit that was set",
        pieces(HEL, event("x" * 5000), STOP),
        TooLargeError,
        "4,000 bytes",
        partial="Hel",
        event_limit=4000,
    ),
]

WRAPPINGS = [
    good("as application/json", joined(stream_head("application/json"), piece(HELLO), END)),
    good("as text/plain", joined(stream_head("text/plain"), piece(HELLO), END)),
    good("as text/html", joined(stream_head("text/html"), piece(HELLO), END)),
    good(
        "as Latin-1, which it is not",
        joined(stream_head("text/event-stream; charset=latin-1"), piece(raw("é") + STOP), END),
        text="é",
    ),
    good("as an unknown charset", joined(stream_head("text/event-stream; charset=x-none"), piece(HELLO), END)),
    good("without a content type", body(HELLO)),
    good("with two content types", body(HELLO, "Content-Type: text/html", "Content-Type: text/event-stream")),
    good("gzip", compressed(gzip.compress(HELLO), "gzip")),
    good("gzip, and identity by name", compressed(gzip.compress(HELLO), "gzip, identity")),
    good("deflate", compressed(zlib.compress(HELLO), "deflate")),
    good("identity by name", compressed(HELLO, "identity")),
    bad("gzip that is cut", compressed(gzip.compress(HELLO)[:40], "gzip"), StreamError, "empty", heard=3),
    bad("gzip that is none", compressed(HELLO, "gzip"), DecodeError, "does not decompress"),
    bad("gzip of 100 MB on one line", compressed(gzip.compress(b"data: " + b"x" * 100_000_000), "gzip"), TooLargeError),
    bad("br", compressed(b"\x8b\x02\x80Hello\x03", "br"), DecodeError, "br"),
    bad("zstd", compressed(b"\x28\xb5\x2f\xfd\x04\x00", "zstd"), DecodeError, "zstd"),
    bad("an encoding of its own", compressed(b"abc", "x-snappy"), DecodeError, "x-snappy"),
    good(
        "chunk extensions",
        joined(
            stream_head(), *(b'%x;name=value;q="1"\r\n%s\r\n' % (len(one), one) for one in (HEL, LO, STOP, DONE)), END
        ),
    ),
    good("trailers", joined(stream_head(), piece(HELLO), b"0\r\nX-Checksum: 7\r\nX-More: 8\r\n\r\n")),
    good(
        "sizes of chunks in capitals and with zeros",
        joined(stream_head(), b"%08X\r\n%s\r\n" % (len(HELLO), HELLO), END),
    ),
    good("a length instead of chunks", body(HELLO, "Content-Type: text/event-stream")),
    good("HTTP/1.0", says(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + HELLO)),
    good(
        "interim answers before it",
        joined(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", pieces(HELLO)),
    ),
    good("a whole answer in its place", answer({"choices": [{"text": "Hello", "index": 0, "finish_reason": "stop"}]})),
]

EVENT_STREAMS = [*LINES, *FIELDS, *CHARACTERS, *ENDS, *WRAPPINGS]
