"""A completion as a tree of tokens: another token can be taken at any place, and the text goes on from there."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import accumulate, pairwise
from textwrap import indent
from typing import Any

import msgspec
from msgspec import UNSET

from . import record
from .errors import ConfigurationError
from .heatmap import token_ends
from .inert import one_line
from .schema import KNOBS, Choice, Completion, CompletionRequest, Logprobs

LEAST = -9999.0
"""The log-probability of what cannot occur, as the API writes it."""
# What servers call the end of the text, which no text can go on from.
END = re.compile(r"<\|[^<>|]*\|>|</?s>|<eos>|")
BYTES = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")
LIST = "list-style:none;margin:0;padding:0 0 0 1.2em"


@dataclass(eq=False, slots=True)
class Node:
    """A token at its place in the text.

    `token` is what the API calls it, `text` what it adds: nothing while a character is not whole. `alternatives`
    are the tokens that could stand here with their log-probabilities, the likeliest first, itself among them.
    `name` and `finish_reason` are those of a branch, at its first and its last node.
    """

    id: int
    token: str
    text: str
    logprob: float | None = None
    alternatives: Mapping[str, float] = field(default_factory=dict)
    parent: Node | None = field(default=None, repr=False)
    children: list[Node] = field(default_factory=list, repr=False)
    name: str = ""
    finish_reason: str | None = None


class TokenTree:
    """The tokens of one choice, and the branches that were added to it.

    It is the first choice with log-probabilities, or the one at `choice`. A branch runs from the start through
    a node and on along the first children to its end. Raises ConfigurationError where there are no
    log-probabilities, or where the request is not known or its prompt is not a single text.
    """

    def __init__(self, completion: Completion, choice: int | None = None) -> None:
        self.request = _single_text(completion)
        self._original = completion
        first = _scored(completion, choice)
        prompt = str(self.request.prompt)
        self._echoed = self.request.parameters.echo is True and first.text.startswith(prompt)
        self.prompt = "" if self._echoed else prompt
        """The text before the first node: nothing where the prompt was echoed, since its tokens are nodes then."""
        self.root = Node(0, "", "")
        """It stands before the first token and is none itself."""
        self.nodes = [self.root]
        """All nodes by id; a node never changes its place, its token or its alternatives."""
        last = self._grow(self.root, first)
        if last is None:
            raise ConfigurationError("the server's tokens do not make up its text: there is nothing to branch at")
        last.finish_reason = first.finish_reason

    def path(self, node: Node) -> list[Node]:
        """Return the nodes from the first token to `node`."""
        nodes = []
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def end(self, node: Node) -> Node:
        """Return the last node of the branch that runs through `node`."""
        while node.children:
            node = node.children[0]
        return node

    def head(self, node: Node) -> Node:
        """Return the first node that the branch through `node` does not share with the one it left."""
        while node.parent is not None and node.parent is not self.root and node is node.parent.children[0]:
            node = node.parent
        return node

    def branches(self) -> Iterator[tuple[int, Node]]:
        """Yield the head of every branch, each after the one that it left, with how often one has left on the way."""
        waiting = [(0, self.root)]
        while waiting:
            depth, node = waiting.pop()
            yield depth, node if depth else self.root.children[0]
            found: list[tuple[int, Node]] = []
            while node.children:
                found += [(depth + 1, child) for child in node.children[1:]]
                node = node.children[0]
            waiting += reversed(found)

    def text_before(self, node: Node) -> str:
        """Return the completion's text up to `node`, without it."""
        return "".join(before.text for before in self.path(node)[:-1])

    def choosable(self, node: Node) -> dict[str, str]:
        """Return the alternatives that text can go on from, and the text that each adds.

        The end of the text is none, nor is a part of a character without its rest.
        """
        held = _held(node.parent)
        texts = ((token, _whole(held, token)) for token in node.alternatives)
        return {token: text for token, text in texts if text is not None}

    def branch(self, node: Node, alternative: str) -> Node:
        """Return the node that has `alternative` in the place of `node`, a new one where there is none.

        Raises ConfigurationError for what is not choosable.
        """
        parent = node.parent or self.root
        for child in parent.children:
            if child.token == alternative:
                return child
        text = self.choosable(node).get(alternative)
        if text is None:
            raise ConfigurationError(f"no text can go on from {one_line(repr(alternative), 60)} at this place")
        return self._add(parent, alternative, text, node.alternatives[alternative], node.alternatives)

    def extend(self, node: Node, chunk: Completion) -> Node:
        """Add the tokens of a streamed `chunk` below `node`; return the last of them.

        Text that comes without log-probabilities is kept too, as one node.
        """
        for choice in chunk.choices[:1]:
            node = self._grow(node, choice) or self._add(node, choice.text, choice.text)
            node.finish_reason = choice.finish_reason or node.finish_reason
        return node

    def name(self, node: Node, text: str) -> None:
        """Call the branch that runs through `node` by the name `text`."""
        self.head(node).name = text

    def logprob(self, node: Node) -> float | None:
        """Return the log-probability of the branch through `node`: the sum of its tokens', None where none is known."""
        scores = self._scores(node)
        return math.fsum(scores) if scores else None

    def perplexity(self, node: Node) -> float | None:
        """Return the perplexity of the branch through `node`: exp of minus its tokens' mean log-probability."""
        scores = self._scores(node)
        try:
            return math.exp(-math.fsum(scores) / len(scores)) if scores else None
        except OverflowError:
            return math.inf

    def completion(self, node: Node) -> Completion:
        """Return the branch through `node` as a completion of the original request, without its usage."""
        return self._completion(self.path(self.end(node)))

    def request_from(self, node: Node) -> CompletionRequest:
        """Return the request that goes on after `node`: its text is part of the prompt, its tokens of max_tokens."""
        path = self.path(node)
        before = len(str(self.request.prompt)) if self._echoed else 0
        starts = accumulate((step.text for step in path), lambda start, text: start + len(text), initial=0)
        made = sum(start >= before for start, _ in zip(starts, path, strict=False))
        return msgspec.structs.replace(
            self.request,
            prompt=self.prompt + "".join(step.text for step in path),
            parameters=_continuing(self.request, made),
        )

    def html(self) -> str:
        """Return every branch as HTML that survives sanitising, nested, from where it left another."""
        parts, level = [], -1
        for depth, head in self.branches():
            parts.append("</details></li></ul>" * (level - depth + 1))
            parts.append(f'<ul style="{LIST}"><li><details open><summary>{escape(self._heading(head))}</summary>')
            parts.append(record.html(self._part(head)))
            level = depth
        return "".join(parts) + "</details></li></ul>" * (level + 1)

    def plain(self) -> str:
        """Return every branch as plain text, indented, from where it left another."""
        parts = []
        for depth, head in self.branches():
            text = indent(record.plain(self._part(head)), "    ", lambda _: True)
            parts.append(indent(f"{self._heading(head)}\n{text}", "    " * depth, lambda _: True))
        return "\n".join(parts)

    def provenance(self) -> dict[str, Any]:
        """Return what an output's metadata keeps: that of the first answer."""
        return record.provenance(self._original)

    def __repr__(self) -> str:
        return f"TokenTree({len(self.nodes) - 1} tokens, {sum(1 for _ in self.branches())} branches)"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {"text/plain": self.plain(), "text/html": self.html()}, self.provenance()

    def _grow(self, node: Node, choice: Choice) -> Node | None:
        """Add the tokens of `choice` below `node`; return the last, or None where they do not make up its text."""
        logprobs = choice.logprobs or Logprobs()
        ends = token_ends(choice.text, logprobs, from_prompt=node is self.root and self._echoed)
        if ends is None:
            return None
        if ends[0]:
            node = self._add(node, choice.text[: ends[0]], choice.text[: ends[0]])
        for at, (token, (start, end)) in enumerate(zip(logprobs.tokens, pairwise(ends), strict=True)):
            score = _score(logprobs.token_logprobs[at]) if at < len(logprobs.token_logprobs) else None
            top = logprobs.top_logprobs[at] if at < len(logprobs.top_logprobs) else None
            node = self._add(node, token, choice.text[start:end], score, _alternatives(top, token, score))
        return node

    def _add(
        self,
        parent: Node,
        token: str,
        text: str,
        logprob: float | None = None,
        alternatives: Mapping[str, float] | None = None,
    ) -> Node:
        node = Node(len(self.nodes), token, text, logprob, alternatives or {}, parent)
        self.nodes.append(node)
        parent.children.append(node)
        return node

    def _scores(self, node: Node) -> list[float]:
        return [step.logprob for step in self.path(self.end(node)) if step.logprob is not None]

    def _completion(self, nodes: Sequence[Node]) -> Completion:
        logprobs = Logprobs(
            [node.token for node in nodes],
            [node.logprob for node in nodes],
            [dict(node.alternatives) or None for node in nodes],
            list(accumulate((len(node.text) for node in nodes[:-1]), initial=0)),
        )
        choice = Choice("".join(node.text for node in nodes), 0, nodes[-1].finish_reason, logprobs)
        return msgspec.structs.replace(self._original, choices=[choice], usage=None, request=self.request)

    def _part(self, head: Node) -> Completion:
        """Return what a branch does not share with the one it left."""
        nodes = self.path(self.end(head))
        return self._completion(nodes[len(self.path(head)) - 1 :])

    def _heading(self, head: Node) -> str:
        left = (head.parent or self.root).children[0]
        if left is head:
            return one_line(head.name, 60) or "the first answer"
        taken = f"{_said(head)} instead of {_said(left)}"
        named = f"{one_line(head.name, 60)}: {taken}" if head.name else taken
        total, perplexity = self.logprob(head), self.perplexity(head)
        if total is None or perplexity is None:
            return named
        return f"{named} · in all: log-probability {total:.2f}, perplexity {perplexity:.2f}"


def _single_text(completion: Completion) -> CompletionRequest:
    if completion.request is None:
        raise ConfigurationError("the completion does not know its request, so its text cannot go on from elsewhere")
    if not isinstance(completion.request.prompt, str):
        raise ConfigurationError("a token tree needs a prompt that is a single text, not a list")
    return completion.request


def _scored(completion: Completion, at: int | None) -> Choice:
    if at is not None and not -len(completion.choices) <= at < len(completion.choices):
        raise ConfigurationError(f"there is no choice {at}: the completion has {len(completion.choices)}")
    for choice in completion.choices if at is None else [completion.choices[at]]:
        if choice.logprobs is not None and choice.logprobs.tokens:
            return choice
    raise ConfigurationError("the completion has no log-probabilities: ask for them with --logprobs 5")


def _score(value: float | None) -> float | None:
    """Return a log-probability as a finite number, or None where it is not known."""
    return None if value is None or math.isnan(value) else min(max(value, LEAST), 0.0)


def _alternatives(top: Mapping[str, float] | None, token: str, score: float | None) -> dict[str, float]:
    known = {other: found for other, value in (top or {}).items() if (found := _score(value)) is not None}
    if score is not None:
        known.setdefault(token, score)
    return dict(sorted(known.items(), key=lambda pair: -pair[1]))


def _raw(token: str) -> bytes | None:
    """Return the bytes of a token that is a part of a character, or None for any other."""
    found = BYTES.fullmatch(token)
    return None if found is None else bytes.fromhex(found[1].replace("\\x", ""))


def _held(node: Node | None) -> bytes:
    """Return the bytes of a character that has begun at `node` or shortly before, and is not whole."""
    before = b""
    # An unfinished character is three bytes at most, and UTF-8 shows by itself where one begins.
    while node is not None and len(before) < 3 and (raw := _raw(node.token)) is not None:
        before, node = raw + before, node.parent
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(before)
    return decoder.getstate()[0]


def _whole(held: bytes, token: str) -> str | None:
    """Return the text that `token` adds after the bytes of an unfinished character, or None where it is no text."""
    if END.fullmatch(token) or "\ufffd" in token:
        return None
    try:
        raw = _raw(token)
        return (held + (token.encode() if raw is None else raw)).decode()
    except UnicodeError:
        return None


def _continuing(request: CompletionRequest, made: int) -> Any:
    asked = request.parameters.max_tokens
    most = KNOBS["max_tokens"].default if asked is UNSET else asked
    left = max(1, int(str(most)) - made)
    return msgspec.structs.replace(request.parameters, max_tokens=left, n=1, best_of=UNSET, echo=UNSET, stream=True)


def _said(node: Node) -> str:
    shown = one_line(repr(node.token), 60)
    if node.logprob is None:
        return shown
    percent = 100 * math.exp(node.logprob)
    return f"{shown} ({percent:.2g}%)" if percent < 10 else f"{shown} ({percent:.0f}%)"
