"""The file of a cassette: JSON Lines, one interaction a line, appended when its answer has ended.

    {"cassette":1,"request":{"method":…,"path":…,"body":{…}},"call":1,"text":[…],"status":200,"headers":{…},"chunks":[…]}

The key of an interaction is its method, path and canonical body, and `call`: 1 for the first of identical requests,
2 for the second. `text` says what `chunks` spell, for people and diffs. A chunk is [milliseconds, text], or
[milliseconds, {"base64": …}] where its bytes alone are no UTF-8. `cut` marks an answer that did not come to its end.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import logging
import os
import shutil
import stat
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from .errors import CassetteError
from .shelf import Index, Place

log = logging.getLogger("completions_magic")

FORMAT = 1
LINE_LIMIT = 256 * 2**20
REWRITE_LIMIT = 8 * 2**20
"""Bytes: up to this size an interaction that is recorded again takes its old place; beyond it the last line counts."""
REPLACES = os.name == "posix"  # elsewhere an open file cannot be replaced
UNFINISHED = ".unfinished"
START = b'{"cassette":'
GLANCE = 200
RECEIVED = 2**20
WRITTEN_BYTES = 2**16
"""Written at once: Linux takes up to twice as long for megabytes in one piece, and longer where memory is scarce."""
ENCODER = msgspec.json.Encoder()


class Asked(msgspec.Struct, frozen=True, dict=True):
    """The request of an interaction, without host, port and headers; `body` is decoded JSON, or None."""

    method: str
    path: str
    body: Any = None

    @cached_property
    def key(self) -> bytes:
        """What identical requests share."""
        return hashlib.sha256(f"{self.method} {self.path}\n{canonical(self.body)}".encode()).digest()


class Raw(msgspec.Struct, frozen=True):
    """Bytes that are no text by themselves."""

    base64: bytes


class Interaction(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request and its answer: `chunks` are (milliseconds since the request, bytes as text or Raw)."""

    cassette: int = msgspec.field(default_factory=lambda: FORMAT)
    request: Asked
    call: int
    cut: bool = False
    text: list[str] = msgspec.field(default_factory=list)
    status: int
    headers: dict[str, str]
    chunks: list[tuple[int, str | Raw]]

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (milliseconds, bytes) of every chunk."""
        for at, chunk in self.chunks:
            yield at, chunk.encode() if isinstance(chunk, str) else chunk.base64


class _Format(msgspec.Struct):
    cassette: int


class _Entry(msgspec.Struct, kw_only=True):
    """A line as the index needs it: the chunks are not read."""

    request: Asked
    call: int
    cut: bool = False
    status: int
    headers: dict[str, str]
    chunks: msgspec.Raw


def canonical(value: Any) -> str:
    """Return JSON that is the same for the same value: names sorted, no blanks, 1.0 as 1."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def asked(method: str, path: str, content: bytes) -> Asked:
    """Return the request with its body in canonical order; a body that is not JSON counts as text."""
    try:
        body = _plain(json.loads(content)) if content else None
        as_written = msgspec.json.decode(msgspec.json.encode(body))
    except (ValueError, OverflowError, RecursionError):
        as_written = body = None
    # NaN, half a surrogate pair or a number of more than 64 bits would not come back as it was.
    if body is None or as_written != body:
        body = content.decode("utf-8", "replace") or None
    return Asked(method, path, body)


class Tape:
    """The interactions in a file, by key and call; memory grows neither with their number nor with their answers.

    Lines that cannot be read are in `damaged`, by number; the others are used. Several processes may append.
    Raises CassetteError where the file is none of ours, or cannot be read or written; then nothing is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.RLock()
        self._was_empty: bool | None = None
        self._told: set[str] = set()
        self._played: defaultdict[bytes, set[int]] = defaultdict(set)
        self._prepared = False
        self._index = Index()
        self._forget()

    def _forget(self) -> None:
        self._index.clear()
        self._lines = 0
        self._read_to = 0
        self._end = b""  # what has been read ends so, unless another program has rewritten the file in its place
        self._torn = False
        self._open_end = False
        self._identity: tuple[int, int] | None = None
        self._seen: tuple[int, ...] | None = None
        self.damaged: dict[int, str] = {}

    def __len__(self) -> int:
        """How many interactions can be replayed."""
        with self._lock:
            self.refresh()
            return self._index.whole

    @property
    def was_empty(self) -> bool:
        """True when there was nothing in the file at the first look."""
        self.refresh()
        return self._was_empty is True

    def refresh(self) -> None:
        """Read what has been added since the last look."""
        with self._lock:
            if self._was_empty is not None and self._is_as_seen():
                return
            with self._opened(write=False) as file:
                if file is not None:
                    self._read_on(file)
                if self._was_empty is None:
                    self._was_empty = not self._index

    def calls(self, request: Asked) -> dict[int, Place]:
        """Return the places of a request's interactions, by call."""
        with self._lock:
            self.refresh()
            return self._index.places(request.key)

    def find(self, request: Asked, call: int) -> Interaction | None:
        """Return the whole interaction that was recorded for this call, or None."""
        with self._lock:
            if self._is_as_seen() and not self._holds(request, call):
                return None  # most of what is recorded was never there, and to look at the file's date is enough
            return self._find(request, call)

    def _holds(self, request: Asked, call: int) -> Place | None:
        place = self._index.places(request.key).get(call)
        return None if place is None or place.cut else place

    def _find(self, request: Asked, call: int) -> Interaction | None:
        with self._opened(write=False) as file:
            if file is None:
                return None
            self._read_on(file)
            place = self._holds(request, call)
            if place is None:
                return None
            found = self._read(file, place)
            if found.request.key != request.key:
                self._forget()
                raise CassetteError(f"{self.name}: line {place.number} was changed while it was in use; ask again")
            return found

    def prepare(self) -> None:
        """Raise CassetteError where the file is none of ours or cannot be written, before an answer is paid for.

        It looks once: what happens to the file later shows when it is written.
        """
        if self._prepared:
            return
        self.refresh()
        if self.path.exists():
            with self._lock, self._opened(write=True):
                pass
        else:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._unusable(f"cannot be made in {self.path.parent}: {error.strerror}") from None
            if not os.access(self.path.parent, os.W_OK):
                raise self._unusable(f"cannot be made in {self.path.parent}: it may not be written")
        self._prepared = True

    def claim(self, request: Asked) -> int:
        """Return the call that this request is: 1 for the first, and the next number for each after it."""
        with self._lock:
            played = self._played[request.key]
            call = next(number for number in itertools.count(1) if number not in played)
            played.add(call)
            return call

    def release(self, request: Asked, call: int) -> None:
        """Take a claim back: what was asked brought nothing to keep, so that the next to ask is this call."""
        with self._lock:
            self._played[request.key].discard(call)

    def rewind(self) -> None:
        """Let every request begin at its first call again."""
        with self._lock:
            self._played.clear()

    def requests(self, last: int = 2**31) -> list[tuple[int, Asked]]:
        """Return (line number, request) of what can be replayed, in the file's order; no more than the `last`."""
        with self._lock, self._opened(write=False) as file:
            if file is None:
                return []
            self._read_on(file)
            return [(place.number, self._read(file, place).request) for place in self._index.last(last)]

    def add(self, interaction: Interaction, *, again: bool = False) -> Interaction | None:
        """Write an interaction; return the whole one whose place it takes.

        Where another process has recorded the same call meanwhile it becomes the next call, unless `again` is true.
        """
        with self._lock, self._opened(write=True) as file:
            if file is None:
                raise self._unusable("cannot be written")
            self._read_on(file)
            places = self._index.places(interaction.request.key)
            place = places.get(interaction.call)
            if place is not None and not place.cut:
                if interaction.cut:
                    place = None  # what was whole stays
                elif not again:
                    interaction.call, place = max(places) + 1, None
                    self._played[interaction.request.key].add(interaction.call)
            old = None if place is None or place.cut else self._read(file, place)
            line = ENCODER.encode_lines([interaction])
            if place is not None and REPLACES and self._read_to + len(line) <= REWRITE_LIMIT:
                self._replace(file, place, line)
            else:
                self._append(file, line, interaction)
            return old

    @property
    def name(self) -> str:
        """What errors call the file."""
        return f"the cassette {self.path.name}"

    def _unusable(self, why: str) -> CassetteError:
        """Return the error of a file that is of no use for any interaction."""
        return CassetteError(f"{self.name} {why}", kind="cassette")

    @contextlib.contextmanager
    def _opened(self, *, write: bool) -> Iterator[BinaryIO | None]:
        """Open the file and lock it against other processes; give None where it is not there and not to be made."""
        doing = "written" if write else "read"
        try:
            with self._open(write=write) as file:
                yield file
        except FileNotFoundError:
            if write:
                raise self._unusable(f"cannot be made in {self.path.parent}") from None
            yield None
        except OSError as error:
            raise self._unusable(f"cannot be {doing}: {error.strerror or error}") from None

    @contextlib.contextmanager
    def _open(self, *, write: bool) -> Iterator[BinaryIO]:
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
        else:
            if not stat.S_ISREG(mode):
                raise self._unusable(f"is {'a folder' if stat.S_ISDIR(mode) else 'no file'}: name a file")
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if write else os.O_RDONLY
            with os.fdopen(
                os.open(self.path, flags | getattr(os, "O_BINARY", 0), 0o666), "r+b" if write else "rb", 0
            ) as file:
                _wait_for_turn(file, write=write)
                if _identity(file) == _identity(self.path):
                    yield file
                    return
            # Another process has put a new file in its place meanwhile.

    def _is_as_seen(self) -> bool:
        """Say whether the file has not been touched since the last look."""
        try:
            return self._seen is not None and self._seen == _stamp(self.path.stat())
        except OSError:
            return False

    def _read_on(self, file: BinaryIO) -> None:
        stamp = _stamp(os.fstat(file.fileno()))
        if stamp == self._seen:
            return
        self._seen = None
        identity = _identity(file)
        if identity != self._identity or _end(file, self._read_to) != self._end:
            self._forget()
            self._identity = identity
        file.seek(self._read_to)
        with self._index.together(), open(file.fileno(), "rb", closefd=False) as buffered:
            for line in iter(lambda: buffered.readline(LINE_LIMIT), b""):
                self._note(line, buffered)
        self._end = _end(file, self._read_to)
        if self.damaged and not self._index:
            number, problem = next(iter(self.damaged.items()))
            self._forget()
            raise self._unusable(f"is none: line {number} {problem}; nothing was written")
        for number, problem in self.damaged.items():
            message = f"{self.name}: line {number} {problem}; the others are used"
            if message not in self._told:
                self._told.add(message)
                log.warning(message)
        if not self._torn and not self._open_end:
            self._seen = stamp

    def _note(self, line: bytes, file: BinaryIO) -> None:
        start, length, whole = self._read_to, len(line), line.endswith(b"\n")
        self._torn = False
        entry = problem = None
        if length == LINE_LIMIT and not whole:
            line, problem = line[: len(START)], "is too long"
            while not whole and (rest := file.readline(RECEIVED)):
                length, whole = length + len(rest), rest.endswith(b"\n")
        elif line.strip():
            entry, problem = _decode(line)
        if not whole and entry is None:
            self._torn = _is_torn(line)
            if problem and not self._torn:
                self.damaged[self._lines + 1] = problem
            return
        self._read_to = start + length
        if self._open_end and line == b"\n":
            self._open_end = False
            return
        self._open_end = not whole
        self._lines += 1
        if problem is not None:
            self.damaged[self._lines] = problem
        elif entry is not None:
            self._index.put(entry.request.key, entry.call, Place(self._lines, start, length, entry.cut))

    def _read(self, file: BinaryIO, place: Place) -> Interaction:
        file.seek(place.start)
        try:
            return msgspec.json.decode(_read_all(file, place.length), type=Interaction)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CassetteError(f"{self.name}: line {place.number} is damaged ({error})") from None

    def _append(self, file: BinaryIO, line: bytes, interaction: Interaction) -> None:
        size = os.fstat(file.fileno()).st_size
        is_plain = self._seen is not None and not self._torn
        if self._torn:
            size = self._read_to
            file.truncate(size)
        elif size and _last_byte(file) != b"\n":
            line = b"\n" + line
        try:
            _write_all(file, line)
        except OSError:
            file.truncate(size)
            raise
        if not is_plain:
            self._read_on(file)
            return
        # It is known what has been added: whoever has the lock is alone.
        self._lines += 1
        place = Place(self._lines, size, len(line), interaction.cut)
        self._index.put(interaction.request.key, interaction.call, place)
        self._read_to = size + len(line)
        self._end = (self._end + line)[-GLANCE:]
        self._seen = _stamp(os.fstat(file.fileno()))

    def _replace(self, file: BinaryIO, place: Place, line: bytes) -> None:
        """Write the file anew with `line` at `place`, so that a killed process leaves the old file or the new one."""
        file.seek(0)
        old = _read_all(file, self._read_to if self._torn else os.fstat(file.fileno()).st_size)
        before, after = old[: place.start], old[place.start + place.length :]
        target = self.path.resolve()
        for left in target.parent.glob(f".{glob.escape(target.name)}.*{UNFINISHED}"):
            left.unlink(missing_ok=True)  # by a process that was killed here: whoever has the lock is alone
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=UNFINISHED)
        try:
            with os.fdopen(descriptor, "wb") as new:
                new.write(before + line + after)
            shutil.copymode(target, name)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        self._forget()


def _decode(line: bytes) -> tuple[_Entry | None, str | None]:
    """Return a line's entry, or what is wrong with it."""
    try:
        made = msgspec.json.decode(line, type=_Format).cassette
        if made != FORMAT:
            return None, f"is in format {made}, and this version reads {FORMAT}"
        entry = msgspec.json.decode(line, type=_Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, f"is damaged ({error})" if not isinstance(error, UnicodeDecodeError) else "is not UTF-8"
    return entry, None


def _is_torn(line: bytes) -> bool:
    """Say whether a last line is what a killed process has left, whose place the next to write takes."""
    if not START.startswith(line[: len(START)]) or not line.strip():
        return False
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False  # whole, and no interaction that this version reads: not ours to drop


def _identity(file: BinaryIO | Path) -> tuple[int, int]:
    found = file.stat() if isinstance(file, Path) else os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when anybody writes."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _end(file: BinaryIO, read_to: int) -> bytes:
    """Return the last bytes of those before `read_to`; fewer where the file has become shorter."""
    start = max(0, read_to - GLANCE)
    file.seek(start)
    return _read_all(file, read_to - start)


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _read_all(file: BinaryIO, length: int) -> bytes:
    pieces = []
    while length and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _write_all(file: BinaryIO, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest[:WRITTEN_BYTES]) :]


def _wait_for_turn(file: BinaryIO, *, write: bool) -> None:
    """Lock the file, which its closing unlocks."""
    try:
        import fcntl
    except ImportError:  # Windows has another kind, which would keep readers out
        return
    with contextlib.suppress(OSError):  # some network file systems have none
        fcntl.flock(file, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
