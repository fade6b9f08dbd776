"""The token view: a completion as a heat map in which any token can be replaced and the text continued."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .client import Client, Stream
from .inert import inert, one_line
from .live import Live, in_words
from .slot import script, style
from .tree import Node, TokenTree

if TYPE_CHECKING:
    from .schema import Completion

PAGE = 32
"""Nodes in a page: a full one is sent once, the last one up to 20 times a second while tokens come."""
PROMPT_SHOWN = 400
LONGEST_NAME = 80


class TokenView(Live):
    """Shows the tokens of `completion`; those that replace them, and the text from there, come from `client`.

    `bind` is called with a name and the current branch when a person gives it a variable's name; without it the
    view does not offer that. The output is the static tree of all branches, and it is written anew when one has
    ended. Raises ConfigurationError for a completion that has no tokens to branch at.
    """

    kind = "tokens"
    _esm = script("token.js", "tokens.js")
    _css = style("tokens.css")

    def __init__(
        self, completion: Completion, client: Client, bind: Callable[[str, Completion], None] | None = None
    ) -> None:
        self._stream: Stream | None = None
        self._rows: list[list[Any]] = []
        self._tree = TokenTree(completion)
        self._current = self._tip = self._tree.nodes[1]
        self._client = client
        self._bind = bind
        super().__init__(self._tree.request.encode(), **self._state(), **self._fixed())
        self.on_msg(self._hear)

    @property
    def tree(self) -> TokenTree:
        """All branches; displayed, it is a static record of them."""
        return self._tree

    @property
    def completion(self) -> Completion:
        """The branch on screen, as it is now."""
        with self._lock:
            return self._tree.completion(self._current).remember(self._client)

    def plain(self) -> str:
        """Return every branch as plain text."""
        return self._tree.plain()

    def html(self) -> str:
        """Return every branch as static HTML."""
        return self._tree.html()

    def metadata(self) -> dict[str, Any]:
        """Return the provenance of the first answer."""
        return self._tree.provenance()

    def __repr__(self) -> str:
        return f"TokenView({self._tree!r})"

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        with self._lock:
            try:
                self._obey(content)
            except Exception as error:  # noqa: BLE001  # a person's own `bind` may raise anything; the view lives on
                self.put(line=in_words(error), failed=True)

    def _obey(self, content: Any) -> None:
        nodes = self._tree.nodes
        match content:
            case {"choose": {"node": int(at), "alternative": int(which)}}:
                self._choose(nodes[at], which)
            case {"walk": {"node": int(at)}}:
                self._current = nodes[at]
                self.put(**self._state())
            case {"name": {"node": int(at), "text": str(text)}}:
                self._tree.name(nodes[at], one_line(text, LONGEST_NAME))
                self.put(**self._state())
                if self._stream is None:
                    self.refresh()
            case {"bind": {"name": str(name)}} if self._bind is not None:
                self._bind(name, self.completion)
                self.put(line=f"{one_line(name, LONGEST_NAME)} holds this branch", failed=False)
            case {"stop": True}:
                self._stop()

    def _choose(self, node: Node, which: int) -> None:
        """Take another token; where nothing follows it yet, let the text go on from it."""
        self._stop()
        self._current = chosen = self._tree.branch(node, list(node.alternatives)[which])
        if not chosen.children:
            self._tip = chosen
            self._stream = stream = self._client.send(self._tree.request_from(chosen))
            self._follow(
                lambda: self._read(stream),
                lambda: self.put(**self._tokens()),
                lambda error: self._end(stream, "error", in_words(error)),
            )
        self.put(line="", failed=False, **self._state())

    def _stop(self) -> None:
        """End the stream in flight; its thread adds nothing from now on."""
        if self._stream is None:
            return
        self._stream.stop()
        self._end(self._stream, "stopped")

    def _end(self, stream: Stream, ended: str | None = None, line: str = "") -> None:
        if stream is not self._stream:
            return
        self._stream = None
        self._tip.finish_reason = ended or self._tip.finish_reason
        self.put(line=line, failed=bool(line), **self._state())
        self.refresh()

    def _read(self, stream: Stream) -> None:
        with contextlib.closing(stream):
            for chunk in stream:
                with self._lock:
                    if stream is not self._stream:
                        return
                    self._tip = self._tree.extend(self._tip, chunk)
        with self._lock:
            self._end(stream)

    def _fixed(self) -> dict[str, Any]:
        """Return what never changes."""
        prompt = self._tree.prompt
        return {
            "prompt": inert("…" * (len(prompt) > PROMPT_SHOWN) + prompt[-PROMPT_SHOWN:]),
            "page": PAGE,
            "bindable": self._bind is not None,
            "raw": self.completion.extra.get("logprobs_mode") == "raw_logprobs",
            "line": "",
            "failed": False,
        }

    def _state(self) -> dict[str, Any]:
        """Return what a message may change."""
        branches = [
            [head.id, depth, one_line(head.name, LONGEST_NAME), one_line(self._tree.end(head).finish_reason or "", 40)]
            for depth, head in self._tree.branches()
        ]
        streaming = None if self._stream is None else self._tree.head(self._tip).id
        return {"branches": branches, "current": self._current.id, "streaming": streaming, **self._tokens()}

    def _tokens(self) -> dict[str, Any]:
        """Return what a token may change: the pages from the one that was not full, and the branch's totals."""
        nodes, start = self._tree.nodes, len(self._rows) // PAGE
        self._rows += [self._row(node) for node in nodes[len(self._rows) :]]
        pages = range(start, math.ceil(len(self._rows) / PAGE))
        shown = {f"page_{page}": self._rows[page * PAGE : (page + 1) * PAGE] for page in pages}
        perplexity = self._tree.perplexity(self._current)
        scores = [self._tree.logprob(self._current), None if perplexity == math.inf else perplexity]
        return {**shown, "count": len(nodes), "scores": scores}

    def _row(self, node: Node) -> list[Any]:
        """Return a node as the page reads it: its parent, token, text, log-probability, alternatives, and which it is.

        An alternative is its token, its log-probability, and whether text can go on from it.
        """
        choosable = self._tree.choosable(node)
        others = [[inert(token), round(score, 4), token in choosable] for token, score in node.alternatives.items()]
        which = list(node.alternatives).index(node.token) if node.token in node.alternatives else -1
        parent = None if node.parent is None else node.parent.id
        return [parent, inert(node.token), inert(node.text), node.logprob, others, which]
