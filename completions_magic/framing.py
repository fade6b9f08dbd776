"""HTTP chunks that have come together, joined into one before the HTTP library reads them.

Servers of this API put every token into an HTTP chunk of its own, and to parse each by itself is nine tenths of what a
token costs in a burst. The form is that of RFC 9112, section 7.1. Whatever has another one passes as it is, so that
only the library judges what is wrong.
"""

from __future__ import annotations

import re

LINE_END = b"\r\n"
HEAD_LIMIT = 64 * 2**10
BLANK = re.compile(rb"\n\r?\n")
CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r?\n", re.IGNORECASE)
LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r?\n", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"
SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
LONGEST_SIZE = 17
NO_SIZE = b"?\r\n"
"""Refused by the library, as is what stands for it: content that goes on where its chunk should end."""
SIZES = {b"%x" % size: size for size in range(1024)}
"""Looked up and not computed, for a token's chunk is small."""


class ChunkJoiner:
    """Reads along one connection: `begin` at every request, then `join` all that is received."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Expect the head of an answer."""
        self._head: bytes | None = b""
        self._passing = False
        self._rest = b""
        self._left = 0
        self._open = False
        self._expected: int | None = None
        self.overflows = False
        """Whether more came than belongs to the answer: it would be taken for the next one."""

    def join(self, received: bytes) -> bytes:
        """Return what stands for `received`: the same content in as few chunks; nothing where half a size has come."""
        if self._passing:
            self._count(received)
            return received
        if self._head is not None:
            return self._begin_body(received, self._head + received)
        parts: list[bytes] = []
        buffer = self._rest + received
        at = self._take_whole(buffer, self._end_open(buffer, 0, parts), parts)
        at = self._take_open(buffer, at, parts)
        content = b"".join(parts)
        joined = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        return joined + self._leave(buffer[at:])

    def _leave(self, rest: bytes) -> bytes:
        """Keep the rest for the next time; return it where it passes."""
        if not self._passing:
            self._rest = rest
            return b""
        if LAST_CHUNK.startswith(rest[: len(LAST_CHUNK)]):
            self._expected = len(LAST_CHUNK)
            self._count(rest)
        return NO_SIZE + rest if self._open else rest

    def _count(self, received: bytes) -> None:
        if self._expected is not None:
            self._expected -= len(received)
            self.overflows = self._expected < 0

    def _begin_body(self, received: bytes, head: bytes) -> bytes:
        """Wait for the end of the head, which passes as it is, and look whether the body is chunked."""
        end = BLANK.search(head)
        if end is None:
            self._head, self._passing = head, len(head) > HEAD_LIMIT
            return received
        if head.startswith(b"HTTP/1.1 1"):
            # An interim answer: the head of the final one follows.
            self._head = b""
            rest = head[end.end() :]
            return received[: len(received) - len(rest)] + (self.join(rest) if rest else b"")
        self._head = None
        self._passing = CHUNKED.search(head, 0, end.end()) is None
        if self._passing and (length := LENGTH.search(head, 0, end.end())):
            self._expected = int(length[1])
        body = head[end.end() :]
        return received[: len(received) - len(body)] + self.join(body)

    def _end_open(self, buffer: bytes, at: int, parts: list[bytes]) -> int:
        """Take what belongs to the chunk that has begun; return where the next one begins."""
        if not self._open:
            return at
        content = buffer[at : at + self._left]
        parts.append(content)
        self._left -= len(content)
        at += len(content)
        end = buffer[at : at + 2]
        if self._left or (end != LINE_END and LINE_END.startswith(end)):
            return at
        self._open = self._passing = end != LINE_END
        return at if self._passing else at + 2

    def _take_whole(self, buffer: bytes, at: int, parts: list[bytes]) -> int:
        """Take as many whole chunks as have come, all at once; return where the rest begins."""
        end = buffer.rfind(LINE_END)
        if self._open or end <= at:
            return at
        # Size and content in turns, where no content holds a line end: the sizes say whether it is so.
        lines = buffer[at:end].split(LINE_END)
        whole = len(lines) - len(lines) % 2
        if whole and lines[whole - 1] == b"":
            whole -= 2  # the last chunk, perhaps
        left = lines[whole:]
        del lines[whole:]
        contents = lines[1::2]
        lengths = list(map(len, contents))
        if list(map(SIZES.get, lines[::2])) != lengths or not all(lengths):
            return at
        parts += contents
        return end + len(LINE_END) - sum(len(line) + len(LINE_END) for line in left)

    def _take_open(self, buffer: bytes, at: int, parts: list[bytes]) -> int:
        """Take chunk by chunk, of the last one what has come; return where the rest begins."""
        while not self._open and not self._passing:
            end = buffer.find(LINE_END, at, at + LONGEST_SIZE)
            if end < 0 and len(buffer) - at < LONGEST_SIZE:
                break
            size = buffer[at : max(at, end)]
            self._left = int(size, 16) if SIZE.fullmatch(size) else 0
            # The last chunk, and one with extensions, are the library's.
            self._passing = not self._left
            self._open = bool(self._left)
            at = self._end_open(buffer, end + 2, parts) if self._open else at
        return at
