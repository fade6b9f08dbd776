"""Event streams, from bytes to the payload of each event.

A pure state machine after the WHATWG specification, "Parsing an event stream"
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream). Event streams are
always UTF-8, whatever the header says, so the payload stays bytes: JSON decoders want bytes anyway.
"""

from __future__ import annotations

from collections.abc import Iterator

from .errors import TooLargeError

EVENT_LIMIT = 8 * 2**20
BOM = b"\xef\xbb\xbf"
FIRST = b"data: "
SEPARATOR = b"\n\n"


class EventDecoder:
    """Turns pieces of bytes, cut anywhere, into the data of each event.

    `limit` bounds one event in bytes; a larger one raises TooLargeError, so memory stays bounded. A last
    event without its blank line is given by `flush`: several servers of this API end that way.
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self.limit = limit
        self._rest: list[bytes] = []
        self._held = 0
        self._data: list[bytes] = []
        self._size = 0
        self._start = True
        self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes] | Iterator[bytes]:
        """Return the data of every event that `piece` completes: a list where all of them are on one line each."""
        if self._start and not self._rest and len(piece) >= len(BOM):
            piece = piece.removeprefix(BOM)
            self._start = False
        if self._start or self._after_cr or self._data or b"\n" not in piece or b"\r" in piece:
            return self._lines(piece)
        text = b"".join([*self._rest, piece])
        end = text.rfind(SEPARATOR)
        if end < 0 or not text.startswith(FIRST) or len(text) > self.limit:
            return self._lines(piece)
        # Events of one line of data each, as nearly all servers send them, are taken apart at once.
        events = text[len(FIRST) : end].split(SEPARATOR + FIRST)
        if b"\n" in b"".join(events):
            return self._lines(piece)
        self._rest, self._held = [], 0
        self._keep(text[end + len(SEPARATOR) :])
        return events

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        if self._after_cr and piece:
            # CR LF is one line end even when the two arrive in different pieces.
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if b"\n" not in piece and b"\r" not in piece:
            self._keep(piece)
            return
        text = b"".join([*self._rest, piece])
        self._rest = []
        self._held = 0
        if self._start:
            text = text.removeprefix(BOM)
            self._start = False
        # bytes.splitlines splits at LF, CR and CRLF, and at nothing else.
        lines = text.splitlines(keepends=True)
        self._after_cr = text.endswith(b"\r")
        rest = b"" if text.endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            yield from self._line(line.rstrip(b"\r\n"))
        self._keep(rest)

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a line."""
        self._rest.append(rest)
        self._held += len(rest)
        if self._size + self._held > self.limit:
            raise TooLargeError(f"one event of the stream is larger than {self.limit:,} bytes")

    def flush(self) -> Iterator[bytes]:
        """Yield the event that the end of the stream left without its blank line."""
        yield from self._lines(b"\n\n")

    def _line(self, line: bytes) -> Iterator[bytes]:
        if not line:
            if self._data:
                yield b"\n".join(self._data)
            self._data = []
            self._size = 0
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            if self._size > self.limit:
                raise TooLargeError(f"one event of the stream is larger than {self.limit:,} bytes")
