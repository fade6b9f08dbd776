"""A server that answers well, but for one request in twenty."""

import itertools
import json
import random
import threading

from conftest import DONE, ScriptedServer, answer, each, event, piece, says, stream, stream_head
from faults.table import FAULTS

ONE_IN = 20
WORDS = ("Once", " upon", " a", " time", " there", " was", " a", " captain", " who", " was", " never", " lost", ".")
PAUSE = 0.01
LAST = 10
"""A prompt that says `slowly` is answered with a pause before each of the last words."""


def broken_scripts():
    """Return what the servers of `make faults` send where an error must come of it, mixed, the same in every run."""
    scripts = [fault.scripts[0] for fault in FAULTS if fault.error is not None and fault.address == "server"]
    random.Random(5).shuffle(scripts)
    return scripts


class SoakServer(ScriptedServer):
    """Answers one request in twenty with the next fault, and the others as the body asks.

    A prompt that says `wait` gets the first word and then nothing until the client has gone; `waiting` is set then.
    """

    def __init__(self):
        self.requests = 0
        self.faults = 0
        self.waiting = threading.Event()
        self._broken = itertools.cycle(broken_scripts())
        self._counting = threading.Lock()
        super().__init__()

    def script(self, heard):
        """Return what answers a request that was just heard."""
        body = heard.json
        with self._counting:
            self.heard.clear()
            self.requests += 1
            if "wait" in body["prompt"]:
                return self._wait
            if self.requests > ONE_IN * (self.faults + 1):
                self.faults += 1
                return next(self._broken)
        return good(body)

    def _wait(self, connection):
        connection.sendall(stream_head() + piece(event(WORDS[0])))
        self.waiting.set()
        self.wait_until_gone(connection)


def good(body):
    """Return an answer with the choices and the log-probabilities that were asked for."""
    every = range(body.get("n", 1))
    if not body.get("stream"):
        choices = [choice("".join(WORDS), index, "stop", body, WORDS) for index in every]
        return answer({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices})
    events = [told(choice(word, index, None, body, [word])) for word in WORDS for index in every]
    events += [told(choice("", index, "stop", body, [])) for index in every]
    if "slowly" not in body["prompt"]:
        return stream([*events, DONE])
    first, last = events[:-LAST], events[-LAST:]
    return says(stream_head(), *map(piece, first), each(map(piece, last), every=PAUSE), piece(DONE))


def choice(text, index, reason, body, words):
    """Return a choice, with log-probabilities where they were asked for."""
    logprobs = None
    if "logprobs" in body:
        top = {f" {letter}": -1.0 - at for at, letter in enumerate("abcde"[: body["logprobs"]])}
        logprobs = {
            "tokens": list(words),
            "token_logprobs": [-0.5] * len(words),
            "top_logprobs": [{word: -0.5, **top} for word in words],
            "text_offset": list(itertools.accumulate(map(len, words), initial=0))[: len(words)],
        }
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def told(said):
    """Return the event of one choice."""
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [said]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
