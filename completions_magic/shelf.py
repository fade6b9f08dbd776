"""What may grow beyond memory: rows and places, kept in a temporary database that ends with its process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3


def temporary_database() -> sqlite3.Connection:
    """Return a database that holds 2 MB in memory, and the rest in a file without a name."""
    import sqlite3  # here, since few who load this use it

    # https://www.sqlite.org/inmemorydb.html, "Temporary Databases"
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")
    return database


@dataclass(frozen=True)
class Place:
    """Where a line stands: its number, its first byte, its length in bytes; and whether its answer was cut."""

    number: int
    start: int
    length: int
    cut: bool


class Index:
    """The places of interactions by key and call. Not thread-safe: whoever has the file's lock is alone."""

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE place (key BLOB, call INT, number INT, start INT, length INT, cut INT, "
            "PRIMARY KEY (key, call)) WITHOUT ROWID"
        )
        self._database.execute("CREATE INDEX lines ON place (number)")

    def clear(self) -> None:
        """Forget every place."""
        self._database.execute("DELETE FROM place")

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Keep what is put within as one, which is faster by far."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("COMMIT")

    def __len__(self) -> int:
        """How many places there are, of answers that were cut too."""
        return self._count("TRUE")

    @property
    def whole(self) -> int:
        """How many answers came to their end."""
        return self._count("NOT cut")

    def _count(self, where: str) -> int:
        (count,) = self._database.execute(f"SELECT COUNT(*) FROM place WHERE {where}").fetchone()  # noqa: S608  # ours
        return int(count)

    def places(self, key: bytes) -> dict[int, Place]:
        """Return the places of a request, by call."""
        found = self._database.execute("SELECT call, number, start, length, cut FROM place WHERE key = ?", (key,))
        return {call: Place(number, start, length, bool(cut)) for call, number, start, length, cut in found}

    def last(self, most: int) -> list[Place]:
        """Return the places of the last requests of which an answer is whole, in the file's order."""
        found = self._database.execute(
            "SELECT MIN(number), start, length, cut FROM place WHERE NOT cut GROUP BY key ORDER BY 1 DESC LIMIT ?",
            (most,),
        )
        return [Place(number, start, length, bool(cut)) for number, start, length, cut in found][::-1]

    def put(self, key: bytes, call: int, place: Place) -> None:
        """Keep a place; what is whole is not replaced by what was cut."""
        self._database.execute(
            "INSERT INTO place VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET number = excluded.number, "
            "start = excluded.start, length = excluded.length, cut = excluded.cut WHERE cut OR NOT excluded.cut",
            (key, call, place.number, place.start, place.length, place.cut),
        )


class Tally:
    """Counts keys. Not thread-safe."""

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE tally (key BLOB PRIMARY KEY, times INT) WITHOUT ROWID")

    def add(self, key: bytes) -> int:
        """Return how often `key` was added, this time too."""
        (times,) = self._database.execute(
            "INSERT INTO tally VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times", (key,)
        ).fetchone()
        return int(times)


class Shelf:
    """A list of anything whose elements go to disk once they are done; what cannot be pickled stays. Thread-safe.

    An element that was appended is in memory until `shelf[number] = element` says that it is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._length = 0
        self._kept: dict[int, Any] = {}
        self._database = temporary_database()
        self._database.execute("CREATE TABLE shelf (number INTEGER PRIMARY KEY, element BLOB)")

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        # Its database ends with this process: what is kept or sent elsewhere is a list.
        return list, (list(self),)

    def __len__(self) -> int:
        return self._length

    def append(self, element: Any) -> None:
        """Put an element at the end."""
        with self._lock:
            self._kept[self._length] = element
            self._length += 1

    def __setitem__(self, number: int, element: Any) -> None:
        import pickle  # here, since few who load this use it

        self._kept[number] = element
        try:
            pickled = pickle.dumps(element)
        except Exception:  # noqa: BLE001  # what a class raises that does not pickle is its own affair
            return
        with self._lock:
            del self._kept[number]
            self._database.execute("INSERT INTO shelf VALUES (?, ?)", (number, pickled))

    def __getitem__(self, number: int | slice) -> Any:
        import pickle

        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(self._length))]
        place = number + self._length if number < 0 else number
        with self._lock:
            if place in self._kept:
                return self._kept[place]
            found = self._database.execute("SELECT element FROM shelf WHERE number = ?", (place,)).fetchone()
        if found is None:
            raise IndexError(f"there are {self._length:,} rows, and {number} is none of them")
        return pickle.loads(found[0])  # noqa: S301  # written above, by this process

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(self._length))
