"""HTTP chunks that are joined before h11 reads them: what h11 then reads is what it would have read."""

import itertools

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from completions_magic.framing import HEAD_LIMIT, ChunkJoiner

relaxed = settings(deadline=None, max_examples=400)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def chunk(content, size=None):
    """Return one HTTP chunk."""
    return (b"%x" % len(content) if size is None else size) + b"\r\n" + content + b"\r\n"


def read(pieces):
    """Return what h11 makes of an answer in `pieces`: its content, and how it ends."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    content = b""
    statuses = []
    for piece in [*pieces, b""]:
        try:
            connection.receive_data(piece)
            while not isinstance(event := connection.next_event(), type) or event not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Data):
                    content += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    return statuses, content, "whole", list(event.headers)
                elif isinstance(event, h11.ConnectionClosed):
                    return statuses, content, "closed"
                else:
                    statuses.append(event.status_code)
        except h11.RemoteProtocolError:
            return statuses, content, "refused"
    return statuses, content, "cut"


def joined(pieces):
    """Return the pieces as h11 is to read them."""
    joiner = ChunkJoiner()
    return [piece for piece in map(joiner.join, pieces) if piece]


def cut(answer, cuts):
    """Return `answer` cut at the places `cuts`."""
    places = [0, *sorted({place % (len(answer) + 1) for place in cuts}), len(answer)]
    return [answer[start:end] for start, end in itertools.pairwise(places) if end > start]


CONTENTS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30),
        st.sampled_from([b"data: x\n\n", b"\r\n", b"a\r\n5\r\nhello", b"0\r\n\r\n", b"x" * 2000, b"\r"]),
    ),
    max_size=12,
)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)
TAILS = st.sampled_from(
    [
        b"0\r\n\r\n",
        b"0\r\nX-More: 1\r\n\r\n",
        b"0;last\r\n\r\n",
        b"0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"000\r\n\r\n",
        b"",
        b"5\r\nhel",
        b"5\r\nhelloXX3\r\nabc\r\n0\r\n\r\n",
        b"5\r\nhello3\r\nabc\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n0\r\n\r\n",
        b"0A\r\n0123456789\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"ffffffffffffffffffffffff\r\nx",
        b"not a size at all, and no line end",
    ]
)


@given(CONTENTS, TAILS, CUTS)
@example([b"hello"], b"5\r\nhello3\r\nabc\r\n0\r\n\r\n", [len(HEAD) + 18])
@example([b"hello"], b"5\r\nhello3\r\nabc\r\n0\r\n\r\n", [len(HEAD) + 19])
@relaxed
def test_a_chunked_answer_reads_the_same_however_it_is_cut(contents, tail, cuts):
    """Content, trailers, and whether it is whole, cut or refused are as without joining."""
    answer = HEAD + b"".join(map(chunk, contents)) + tail
    assert read(joined(cut(answer, cuts))) == read([answer])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n",
        b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING:Chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Note: transfer-encoding: chunked\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        INTERIM + HEAD,
        INTERIM + INTERIM + HEAD,
        b"nonsense\r\n\r\n",
    ],
)
@given(contents=CONTENTS, cuts=CUTS)
@relaxed
def test_every_other_head_reads_the_same_too(head, contents, cuts):
    """Lengths, ends of connections, interim answers, other spellings and what is no HTTP are as without joining."""
    answer = head + b"".join(map(chunk, contents)) + b"0\r\n\r\n"
    assert read(joined(cut(answer, cuts))) == read([answer])


def test_what_came_together_is_one_chunk():
    """A hundred small chunks are one for h11."""
    joiner = ChunkJoiner()
    assert joiner.join(HEAD) == HEAD
    body = b"".join(chunk(b"data: %d\n\n" % number) for number in range(100))
    assert joiner.join(body) == chunk(b"".join(b"data: %d\n\n" % number for number in range(100)))


def test_what_has_come_of_a_chunk_is_handed_on_at_once():
    """A chunk is not waited for: its beginning is a chunk of its own."""
    joiner = ChunkJoiner()
    joiner.join(HEAD)
    assert joiner.join(b"a\r\n01234") == chunk(b"01234")
    assert joiner.join(b"56789\r") == chunk(b"56789")
    assert joiner.join(b"\n5") == b""
    assert joiner.join(b"\r\nhello\r\n") == chunk(b"hello")


def test_another_request_on_the_same_connection_begins_anew():
    """After the end of a chunked answer the next one may have a length."""
    joiner = ChunkJoiner()
    answer = HEAD + chunk(b"a") + chunk(b"b") + b"0\r\n\r\n"
    for _ in range(2):
        joiner.begin()
        assert read([joiner.join(answer)]) == read([answer])
    joiner.begin()
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n1\r\na\r\n1\r\nb\r\n"
    assert joiner.join(plain) == plain


def test_a_head_without_end_is_not_kept():
    """A head larger than any library takes passes, and what follows it."""
    joiner = ChunkJoiner()
    endless = b"HTTP/1.1 200 OK\r\n" + b"X-More: 1\r\n" * (HEAD_LIMIT // 10)
    assert joiner.join(endless) == endless
    assert joiner.join(b"\r\n1\r\na\r\n1\r\nb\r\n") == b"\r\n1\r\na\r\n1\r\nb\r\n"


WHOLE = {
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE.keys())
def test_what_comes_behind_an_answer_is_noticed(whole):
    """However it is cut: the answer itself is never too much, a byte more always is; a request begins anew."""
    for cut in range(1, len(whole)):
        joiner = ChunkJoiner()
        for part in (whole[:cut], whole[cut:]):
            joiner.join(part)
            assert not joiner.overflows
        joiner.join(b"H")
        assert joiner.overflows
        joiner.begin()
        assert not joiner.overflows
        joiner.join(whole + b"H")
        assert joiner.overflows
