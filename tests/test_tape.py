"""The file of a cassette: what is written is read again, whatever became of the file meanwhile."""

import json
import logging
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import answer, event, piece, stream_head
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from completions_magic.cassette import MODES
from completions_magic.errors import CassetteError
from completions_magic.tape import Interaction, Raw, Tape, asked

PATH = "/v1/completions"
ASK = b'{"prompt":"P","model":"m"}'


def interaction(call=1, *, content=ASK, chunks=((2, b"x"),), cut=False, text=("x",)):
    """Return an interaction as a recorder makes it."""
    kept = []
    for at, chunk in chunks:
        try:
            kept.append((at, chunk.decode()))
        except UnicodeDecodeError:
            kept.append((at, Raw(chunk)))
    return Interaction(
        request=asked("POST", PATH, content),
        call=call,
        cut=cut,
        text=list(text),
        status=200,
        headers={"content-type": "application/json"},
        chunks=kept,
    )


def body(number):
    """Return the body of one of many different requests."""
    return json.dumps({"prompt": f"P{number}"}).encode()


def filled(path, count):
    """Return a tape of `count` different interactions."""
    tape = Tape(path)
    for number in range(count):
        tape.add(interaction(content=body(number), chunks=[(0, f"answer {number}".encode())]))
    return tape


def held(tape, count):
    """Return the numbers, of the first `count` requests, whose answers the tape holds whole."""
    found = {}
    for number in range(count):
        kept = tape.find(asked("POST", PATH, body(number)), 1)
        if kept is not None:
            assert list(kept.pieces()) == [(0, f"answer {number}".encode())]
            found[number] = kept
    return list(found)


def warnings_of(caplog):
    """Return what was logged as a warning."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(),
    chunks=st.lists(st.tuples(st.integers(0, 2**40), st.binary()), max_size=5),
)
@example(content=b'{"t": NaN}', chunks=[])
@example(content=b'{"t": 1e999, "n": 340282366920938463463374607431768211456}', chunks=[])
@example(content=rb'{"p": "\ud800"}', chunks=[(0, b"\xed\xa0\x80")])
def test_any_body_and_any_split_of_bytes_comes_back(tmp_path, content, chunks):
    """What was asked finds its answer again, in another process's tape, with every chunk to the byte."""
    path = tmp_path / "t.jsonl"
    path.unlink(missing_ok=True)
    Tape(path).add(interaction(content=content, chunks=chunks))
    assert path.read_bytes().count(b"\n") == 1
    kept = Tape(path).find(asked("POST", PATH, content), 1)
    assert kept is not None
    assert list(kept.pieces()) == chunks


SAME = [
    ('{"a":1,"b":2}', ' { "b": 2, "a": 1 } '),
    ('{"t":1}', '{"t":1.0}'),
    ('{"t":-0.0}', '{"t":0}'),
    ('{"o":{"y":1,"x":[2.0]}}', '{"o":{"x":[2],"y":1}}'),
    (r'{"p":"\u00e9\u2028"}', '{"p":"é\u2028"}'),
]
OTHER = [
    ('{"t":1}', '{"t":1.5}'),
    ('{"t":1}', '{"t":"1"}'),
    ('{"t":1}', '{"t":true}'),
    ('{"p":[1,2]}', '{"p":[2,1]}'),
    ('{"p":"é"}', '{"p":"e\u0301"}'),
    ('{"t":null}', "{}"),
    ('{"t":NaN}', '{"t":null}'),
    (r'{"p":"\ud800"}', r'{"p":"\ud801"}'),
    ("not JSON", "not  JSON"),
]


def test_requests_are_the_same_when_their_json_is():
    """Order, blanks, escapes and 1.0 for 1 make no other request; everything else does."""
    for pairs, same in ((SAME, True), (OTHER, False)):
        for one, other in pairs:
            first, second = (asked("POST", PATH, content.encode()) for content in (one, other))
            assert (first.key == second.key) is same, (one, other)
    assert asked("POST", PATH, b"{}").key != asked("GET", PATH, b"{}").key != asked("GET", "/", b"{}").key


def test_a_line_is_stable_and_made_to_be_read(tmp_path):
    """The same interaction is the same line, in the order and the form that the README shows."""
    tape = Tape(tmp_path / "t.jsonl")
    tape.add(interaction(content=b'{"prompt":"Caf\\u00e9","model":"m"}', chunks=[(2, "né".encode()), (3, b"\xc3")]))
    tape.add(interaction(2, cut=True))
    first, second = tape.path.read_text(encoding="utf-8").splitlines()
    assert first == (
        '{"cassette":1,"request":{"method":"POST","path":"/v1/completions","body":{"model":"m","prompt":"Café"}},'
        '"call":1,"text":["x"],"status":200,"headers":{"content-type":"application/json"},'
        '"chunks":[[2,"né"],[3,{"base64":"ww=="}]]}'
    )
    assert second == (
        '{"cassette":1,"request":{"method":"POST","path":"/v1/completions","body":{"model":"m","prompt":"P"}},'
        '"call":2,"cut":true,"text":["x"],"status":200,"headers":{"content-type":"application/json"},'
        '"chunks":[[2,"x"]]}'
    )


def test_a_cassette_cut_at_any_byte_still_loads(tmp_path, caplog):
    """Every whole line is used, none is invented, and the next to write repairs the end."""
    whole = filled(tmp_path / "whole.jsonl", 3).path.read_bytes()
    path = tmp_path / "cut.jsonl"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        # A line is whole when its last brace is there, with or without the newline.
        expected = [number for number in range(3) if length >= len(b"\n".join(whole.split(b"\n")[: number + 1]))]
        tape = Tape(path)
        assert held(tape, 3) == expected, length
        assert path.read_bytes() == whole[:length]
        tape.add(interaction())
        again = Tape(path)
        assert held(again, 3) == expected
        assert len(again) == len(expected) + 1
        assert all(json.loads(line) for line in path.read_bytes().splitlines())
    assert not warnings_of(caplog)


DAMAGED = [
    (b"{not JSON}", "is damaged"),
    (b'{"cassette":1,"request":', "is damaged"),
    (b'{"cassette":1,"request":{"method":"POST","path":"/","body":"\xff"}}', "is not UTF-8"),
    (b"[1, 2]", "is damaged"),
    (b"null", "is damaged"),
    (b'{"cassette":"1"}', "is damaged"),
    (b'{"cassette":1,"request":{"method":"POST","path":"/"},"call":"first"}', "is damaged"),
    (b'{"cassette":2,"of":"the future"}', "is in format 2, and this version reads 1"),
    (b"[" * 100_000, "is damaged"),
    (b"<<<<<<< HEAD", "is damaged"),
]


def test_a_damaged_line_is_named_and_the_others_are_used(tmp_path, caplog):
    """The number of the line and what is wrong with it are said once; nothing else is lost, by writing neither."""
    lines = filled(tmp_path / "whole.jsonl", 3).path.read_bytes().splitlines(keepends=True)
    path = tmp_path / "t.jsonl"
    for line, said in DAMAGED:
        caplog.clear()
        path.write_bytes(lines[0] + line + b"\n" + lines[2])
        tape = Tape(path)
        assert held(tape, 3) == [0, 2], line[:40]
        tape.add(interaction())
        assert len(tape) == 3
        assert line in path.read_bytes().splitlines()
        (told,) = warnings_of(caplog)
        assert told.startswith(f"the cassette t.jsonl: line 2 {said}"), line[:40]
        assert len(Tape(path)) == 3


@pytest.mark.parametrize("last", [b"# remember this", b'{"cassette":2,"of":"the future"}'], ids=["note", "format"])
def test_a_last_line_that_is_not_torn_is_kept_by_who_writes_next(tmp_path, last):
    """A line without its newline that no killed process of ours left is somebody's: it is not overwritten."""
    tape = filled(tmp_path / "t.jsonl", 2)
    with tape.path.open("ab") as file:
        file.write(last)
    tape.add(interaction(content=body(0), chunks=[(0, b"answer 0")], text=["other"]), again=True)
    assert tape.path.read_bytes().endswith(last)
    tape.add(interaction(content=body(2), chunks=[(0, b"answer 2")]))
    assert b"\n" + last + b"\n" in tape.path.read_bytes()
    assert held(Tape(tape.path), 3) == [0, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.removesuffix(b"\n"),
        lambda whole: b"\r\n" + whole.replace(b"\n", b"\r\n"),
        lambda whole: whole.replace(b"\n", b"\n\n \t\n") + b"   ",
    ],
    ids=["no newline at the end", "CRLF", "blank lines"],
)
def test_line_ends_and_blank_lines_do_not_matter(tmp_path, caplog, change):
    """What an editor or git makes of line ends is read, and written on to."""
    tape = filled(tmp_path / "t.jsonl", 3)
    tape.path.write_bytes(change(tape.path.read_bytes()))
    tape = Tape(tape.path)
    assert held(tape, 3) == [0, 1, 2]
    tape.add(interaction(content=body(3), chunks=[(0, b"answer 3")]))
    tape.add(interaction(content=body(4), chunks=[(0, b"answer 4")]))
    assert held(tape, 5) == held(Tape(tape.path), 5) == [0, 1, 2, 3, 4]
    assert not warnings_of(caplog)


NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1).encode()


FOREIGN = {
    "Python": b"import os\nprint(os.name)\n",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "notebook": NOTEBOOK,
    "JSON": b'{"a": 1}\n',
    "one line": b"no newline",
}


def test_a_file_that_is_no_cassette_is_left_alone(tmp_path, server):
    """One clear line before anything is sent, in every mode, and not a byte of the file is changed."""
    for name, content in FOREIGN.items():
        path = tmp_path / name
        path.write_bytes(content)
        for record in MODES:
            with pytest.raises(CassetteError) as raised:
                server.client(cassette=path, record=record).complete("P")
            assert re.fullmatch(f"the cassette {name} is none: line 1 .+; nothing was written", str(raised.value))
        assert path.read_bytes() == content
    assert not server.heard


def test_a_file_without_a_line_is_an_empty_cassette(tmp_path):
    """An empty file, or one of blanks, is recorded to."""
    path = tmp_path / "t.jsonl"
    for content in (b"", b"\n\n", b"  ", b" \n\t"):
        path.write_bytes(content)
        assert (len(Tape(path)), Tape(path).was_empty) == (0, True)
        Tape(path).add(interaction())
        assert len(Tape(path)) == 1


def make_folder(path):
    """Put a folder at `path`."""
    path.mkdir()


def make_loop(path):
    """Put a symbolic link at `path` that leads to itself."""
    path.symlink_to(path)


def make_below_a_file(path):
    """Give a path below a file."""
    path.write_text("x")
    return path / "t.jsonl"


IMPOSSIBLE = {
    "is a folder: name a file": make_folder,
    "cannot be read: Too many levels of symbolic links": make_loop,
    "cannot be read: Not a directory": make_below_a_file,
    "is no file: name a file": lambda _: Path("/dev/full"),
    "cannot be read: File name too long": lambda path: path.with_name("x" * 300),
}


def test_a_path_that_cannot_be_a_cassette_is_one_line_before_anything_is_sent(tmp_path, server):
    """The error names the file and why; no request goes out that could not be kept."""
    for number, (said, make) in enumerate(IMPOSSIBLE.items()):
        path = tmp_path / f"place {number}"
        path = make(path) or path
        with pytest.raises(CassetteError) as raised:
            server.client(cassette=path).complete("P")
        assert str(raised.value) == f"the cassette {path.name} {said}"
    assert not server.heard


def test_a_line_that_was_edited_while_it_is_in_use_is_never_read_as_another(tmp_path):
    """A program that rewrites the file in place moves its lines: each request still finds its own answer."""
    tape = filled(tmp_path / "t.jsonl", 3)
    assert held(tape, 3) == [0, 1, 2]
    lines = tape.path.read_bytes().splitlines(keepends=True)
    tape.path.write_bytes(b"\n" + lines[2] + lines[0] + lines[1] + b"\n")
    assert held(tape, 3) == [0, 1, 2]
    tape.path.write_bytes(tape.path.read_bytes().replace(b'"P0"', b'"PX"'))
    with pytest.raises(CassetteError, match="line 3 was changed while it was in use"):
        held(tape, 3)
    assert held(tape, 3) == [1, 2]


def test_what_is_recorded_again_takes_its_line(tmp_path):
    """The line count stays, the other lines stay to the byte, and a file beyond the limit is appended to."""
    tape = filled(tmp_path / "t.jsonl", 3)
    before = tape.path.read_bytes().splitlines()
    tape.path.chmod(0o640)
    again = interaction(content=body(1), chunks=[(0, b"answer 1")], text=["something longer"])
    assert tape.add(again, again=True).text == ["x"]
    after = tape.path.read_bytes().splitlines()
    assert (after[0], after[2], len(after)) == (before[0], before[2], 3)
    assert after[1] != before[1]
    assert tape.path.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in tmp_path.iterdir()] == ["t.jsonl"]


APPEND = """
import sys
from completions_magic.tape import Tape
from test_tape import body, interaction
tape = Tape(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    own = f"{sys.argv[2]} {number}"
    tape.add(interaction(content=body(own), chunks=[(number, own.encode())]))
    tape.add(interaction(chunks=[(number, own.encode())], text=[own]))
"""


def started(code, *arguments):
    """Start a Python program that can import this file, and wait until it is ready."""
    program = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "ready\n"
    return program


def test_two_processes_append_to_one_file(tmp_path):
    """Each of 400 interactions a process is there once; the same request becomes the next call of it."""
    path = tmp_path / "t.jsonl"
    programs = [started(APPEND, str(path), name) for name in ("a", "b")]
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    assert [program.communicate()[1] or program.returncode for program in programs] == [0, 0]
    tape = Tape(path)
    assert (len(tape), tape.damaged) == (800, {})
    assert len(path.read_bytes().splitlines()) == 800
    for name in ("a", "b"):
        for number in range(200):
            kept = tape.find(asked("POST", PATH, body(f"{name} {number}")), 1)
            assert list(kept.pieces()) == [(number, f"{name} {number}".encode())]
    same = asked("POST", PATH, ASK)
    texts = {tape.find(same, call).text[0] for call in range(1, 401)}
    assert texts == {f"{name} {number}" for name in ("a", "b") for number in range(200)}


def test_two_processes_record_the_same_anew(tmp_path):
    """Where both replace lines each finds the other's file, and no line is torn or lost."""
    path = tmp_path / "t.jsonl"
    one, two = filled(path, 3), Tape(path)
    assert len(two) == 3
    for turn in range(30):
        for tape in (one, two):
            longer = "y" * ((turn * 7) % 11)
            tape.add(
                interaction(content=body(turn % 3), chunks=[(0, f"answer {turn % 3}".encode())], text=[longer]),
                again=True,
            )
    assert held(one, 3) == held(two, 3) == held(Tape(path), 3) == [0, 1, 2]
    assert len(path.read_bytes().splitlines()) == 3


def test_what_another_process_recorded_meanwhile_is_not_replayed_as_the_next_call(tmp_path):
    """Who recorded the first call second has had it: the next identical request is a new one."""
    ours, theirs = Tape(tmp_path / "t.jsonl"), Tape(tmp_path / "t.jsonl")
    request = asked("POST", PATH, ASK)
    assert (ours.claim(request), theirs.claim(request)) == (1, 1)
    theirs.add(interaction(text=["theirs"]))
    ours.add(interaction(text=["ours"]))
    assert ours.find(request, 2).text == ["ours"]
    assert ours.claim(request) == 3


RECORD = """
import sys
from completions_magic import Client
client = Client(base_url=sys.argv[1], model="m", cassette=sys.argv[2], record=sys.argv[3])
print("ready", flush=True)
number = 0
while True:
    number += 1
    client.complete(f"Story {number % 25}", stream=True)
"""


def killed_while_recording(server, path, kills, seed):
    """Kill a recording program `kills` times; check the cassette after each, and return how much it held."""
    chance = random.Random(seed)
    words = [piece(event(f"word {number} ")) for number in range(40)]
    done = piece(event(reason="stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    server.scripts = [stream_head() + b"".join(words) + done]
    counts = []
    for kill in range(kills):
        program = started(RECORD, server.base_url, str(path), "all" if kill % 2 else "new_episodes")
        threading.Event().wait(chance.uniform(0.0, 0.2))
        program.kill()
        program.communicate()
        tape = Tape(path)
        counts.append(len(tape))
        assert not tape.damaged
        for _, request in list(tape.requests()):
            for call, place in tape.calls(request).items():
                kept = None if place.cut else tape.find(request, call)
                spelled = b"".join(chunk for _, chunk in kept.pieces())
                assert (spelled.count(b"data: "), spelled[-14:]) == (42, b"data: [DONE]\n\n")
    return counts


def test_a_process_killed_at_any_moment_leaves_a_cassette_that_loads(tmp_path, server):
    """After each of twenty kills every line loads, and every interaction is whole; what was there stays there."""
    counts = killed_while_recording(server, tmp_path / "t.jsonl", 20, seed=4)
    assert counts == sorted(counts)
    assert counts[-1] > 20


FULL = """
import resource, sys
from completions_magic import Client
from completions_magic.errors import CassetteError
url, path, size, record, stream = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
print("ready", flush=True)
try:
    Client(base_url=url, model="m", cassette=path, record=record).complete("P", stream=stream == "streamed")
except CassetteError as error:
    print(error)
    print(repr(error.partial.text))
"""


@pytest.mark.parametrize("stream", ["streamed", "whole"])
@pytest.mark.parametrize("record", ["new_episodes", "all"])
def test_on_a_full_disk_the_answer_is_not_lost(tmp_path, server, record, stream):
    """The error says so and carries the whole answer; what was on the cassette is there to the byte."""
    path, text = tmp_path / "t.jsonl", "Hello " * 50
    whole = answer({"choices": [{"text": text, "index": 0, "finish_reason": "stop"}]})
    streamed = stream_head() + piece(event(text, reason="stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    server.scripts = [streamed if stream == "streamed" else whole]
    with server.client(cassette=path) as client:
        client.complete("P" if record == "all" else "Q", stream=stream == "streamed")
    before = path.read_bytes()
    # The second recording may be some bytes shorter: it holds the pieces in which its answer came, and when.
    size = len(before) - (100 if record == "all" else -100)
    program = started(FULL, server.base_url, str(path), str(size), record, stream)
    said, _ = program.communicate()
    assert program.returncode == 0
    assert said.splitlines() == ["the cassette t.jsonl cannot be written: File too large", repr(text)]
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["t.jsonl"]
