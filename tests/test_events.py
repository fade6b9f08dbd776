"""Event streams from bytes, after https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import collections
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from completions_magic.errors import TooLargeError
from completions_magic.events import EventDecoder

relaxed = settings(deadline=None)

BOM = b"\xef\xbb\xbf"


def decoded(*pieces, flush=False):
    """Return the events that `pieces` complete, and with `flush` the one that the end leaves open."""
    decoder = EventDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + list(decoder.flush()) if flush else events


# The examples of the specification, in its order, each with the data of the events that it says are fired.
SPECIFICATION = {
    "messages": (
        (
            b"data: This is the first message.\n\n"
            b"data: This is the second message, it\ndata: has two lines.\n\n"
            b"data: This is the third message.\n\n"
        ),
        [
            b"This is the first message.",
            b"This is the second message, it\nhas two lines.",
            b"This is the third message.",
        ],
    ),
    "types": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [b"73857293", b"2153", b"113411"],
    ),
    "stocks": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
    "four blocks": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [b"first event", b"second event", b" third event"],
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [b"", b"\n"]),
    "one space": (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
}
EXAMPLES = pytest.mark.parametrize(("stream", "events"), SPECIFICATION.values(), ids=SPECIFICATION)
ENDS = pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])


@EXAMPLES
@ENDS
def test_the_examples_of_the_specification_fire_the_events_that_it_says(stream, events, end):
    """Each example gives its events with every kind of line end."""
    assert decoded(stream.replace(b"\n", end)) == events


@EXAMPLES
@ENDS
def test_the_examples_may_come_byte_by_byte(stream, events, end):
    """Bytes that come one at a time are the same stream."""
    stream = stream.replace(b"\n", end)
    assert decoded(*(bytes([byte]) for byte in stream)) == events


@EXAMPLES
@ENDS
def test_the_examples_may_be_cut_anywhere(stream, events, end):
    """Each example gives the same events for every cut into two."""
    stream = stream.replace(b"\n", end)
    for cut in range(len(stream) + 1):
        assert decoded(stream[:cut], stream[cut:]) == events


fragments = [b"data: a", b"data", b"da", b":", b" ", b"x", b"\n", b"\r", b"\r\n", b"\r\ndata: b", BOM, BOM[:1], b""]


@relaxed
@given(st.lists(st.sampled_from(fragments)).map(b"".join), st.lists(st.integers(0, 60)))
@example(BOM + b"data: x\r\n\r\n", [1, 2, 11, 13])
@example(b"data: x\r\ndata: y\r\n\r\n", [8])
@example(b"data: x\r\r\ndata: y\n\r\n", [8, 9, 10])
def test_no_cut_of_any_bytes_changes_the_events(stream, cuts):
    """Whatever the bytes are and wherever they are cut, empty pieces included, the events are the same."""
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert decoded(*pieces, flush=True) == decoded(stream, flush=True)


@relaxed
@given(
    st.lists(st.lists(st.text().map(lambda text: text.replace("\r", "").replace("\n", "")), min_size=1)),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
    st.booleans(),
)
def test_whatever_is_written_as_events_is_read_back(events, end, spoken):
    """Any text comes through: U+2028, U+0085, form feeds and NULs are no line ends."""
    stream = BOM if spoken else b""
    for lines in events:
        stream += b": keep-alive" + end
        stream += b"".join(b"data: " + line.encode() + end for line in lines) + end
    assert decoded(stream) == ["\n".join(lines).encode() for lines in events]


def test_a_byte_order_mark_is_dropped_at_the_start_and_only_there():
    """One BOM before the first field is none of it; a BOM before a later field makes it another field."""
    assert decoded(BOM + b"data: a\n\n" + BOM + b"data: b\n\n") == [b"a"]
    assert decoded(BOM + b"data: a\n\n", BOM + b"data: b\n\n") == [b"a"]
    assert decoded(BOM + BOM + b"data: a\n\n") == []


def test_half_a_byte_order_mark_is_no_field():
    """Bytes that only begin like a BOM are kept as what they are."""
    assert decoded(b"\xef\xbb", b"data: a\n\ndata: b\n\n") == [b"b"]


def test_comments_and_other_fields_fire_nothing():
    """A comment, an id, a retry, an event type and an unknown field have no data."""
    assert decoded(b": hello\n:\n\nid: 1\n\nretry: 10\n\nevent: ping\n\nother: x\n\n DATA: x\n\n") == []


def test_field_names_are_matched_whole():
    """`datab` and `Data` are other fields than `data`, and so is one with a blank before it."""
    assert decoded(b"datab: 1\nData: 2\n data: 3\ndata : 4\ndata: 5\n\n") == [b"5"]


def test_only_the_first_colon_ends_a_field_name():
    """The data may hold colons."""
    assert decoded(b"data: a: b\n\n") == [b"a: b"]


def test_an_event_is_given_as_soon_as_its_blank_line_has_come():
    """Nothing waits for the next event; a blank line that ends in CR does not wait for its LF."""
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: a\r\n\r")) == [b"a"]
    assert list(decoder.feed(b"\ndata: b\n")) == []
    assert list(decoder.feed(b"\n")) == [b"b"]


def test_the_end_of_the_stream_gives_an_event_without_its_blank_line():
    """Servers of this API end so: `flush` gives what the specification would drop, once."""
    for stream in (b"data: a\n\ndata: b", b"data: a\n\ndata: b\n", b"data: a\n\ndata: b\r"):
        assert decoded(stream, flush=True) == [b"a", b"b"]
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: a")) == []
    assert [*decoder.flush(), *decoder.flush()] == [b"a"]


@pytest.mark.parametrize("stream", [b"", b"\n", b"\r\n\r\n", b": comment\n\n", BOM])
def test_nothing_has_no_events(stream):
    """An empty stream, blank lines and comments alone give no event, at the end neither."""
    assert decoded(stream, flush=True) == []


@pytest.mark.parametrize(
    "large", [b"data: " + b"x" * 2000, b"data: xxxxxxxxx\n" * 200, b"x" * 2000], ids=["line", "lines", "no field"]
)
def test_an_event_above_the_limit_is_refused_before_it_has_come_whole(large):
    """An event that does not end is refused at the limit, so that memory stays bounded."""
    pieces = (large[start : start + 10] for start in range(0, len(large), 10))
    decoder = EventDecoder(limit=1000)
    with pytest.raises(TooLargeError, match="1,000 bytes"):
        collections.deque(event for piece in pieces for event in decoder.feed(piece))
    assert sum(map(len, pieces)) > 300  # the rest was never asked for


def test_an_event_above_the_limit_is_refused_in_one_piece_too():
    """The limit holds for an event that comes with its end."""
    with pytest.raises(TooLargeError):
        list(EventDecoder(limit=1000).feed(b"data: " + b"x" * 2000 + b"\n\n"))


def test_the_limit_is_one_event_and_not_the_stream():
    """Events below the limit pass for ever, and so do comments."""
    decoder = EventDecoder(limit=1000)
    event = b": " + b"c" * 300 + b"\ndata: " + b"x" * 600 + b"\n\n"
    assert [len(data) for _ in range(50) for data in decoder.feed(event)] == [600] * 50


@pytest.mark.parametrize("end", [b"", b"\n\n"], ids=["open", "whole"])
def test_events_before_the_one_that_is_too_large_are_given(end):
    """What was whole is handed on before the error comes."""
    events = EventDecoder(limit=1000).feed(b"data: a\n\ndata: " + b"x" * 2000 + end)
    assert next(events) == b"a"
    with pytest.raises(TooLargeError):
        next(events)
