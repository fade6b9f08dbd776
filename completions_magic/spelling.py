"""Tokens that spell a key together, each of them too short to tell."""

from __future__ import annotations

from collections.abc import Mapping

from .key import PIECE, ApiKey
from .schema import Choice, Logprobs


class Spelling:
    """Masks, chunk by chunk, the pieces of a key that the tokens of each choice spell.

    Tokens at the end of a chunk that may begin a piece wait for the next one, as texts do.
    """

    def __init__(self, key: ApiKey) -> None:
        self._key = key
        self._before: dict[int, str] = {}
        self.waiting: dict[int, Logprobs] = {}

    def said_with(self, choices: list[Choice]) -> dict[int, str]:
        """Return what the tokens of some choices spell, each behind the end of what came before."""
        parts = {index: [before] for index, before in self._before.items()}
        for choice in choices:
            if choice.logprobs is not None:
                parts.setdefault(choice.index, []).extend(choice.logprobs.tokens)
        return {index: "".join(tokens) for index, tokens in parts.items()}

    def go_on(self, said: Mapping[int, str]) -> None:
        """Note what has been shown as it came."""
        self._before = {index: text[-PIECE:] for index, text in said.items()}

    def mask(self, choices: list[Choice], *, more: bool) -> None:
        """Mask the tokens of choices, and their alternatives; where `more` may come the last ones may wait."""
        for choice in choices:
            self._mask(choice, more=more and not choice.finish_reason)

    def _mask(self, choice: Choice, *, more: bool) -> None:
        waited = self.waiting.pop(choice.index, None)
        logprobs = choice.logprobs if waited is None else waited + (choice.logprobs or Logprobs())
        if logprobs is None:
            return
        if not logprobs.tokens:
            self._mask_entries(logprobs, choice.index)
        shown = self._read(choice.index, logprobs.tokens, more=more)
        if len(shown) < len(logprobs.tokens):
            self.waiting[choice.index] = _part(logprobs, slice(len(shown), None))
            logprobs = _part(logprobs, slice(len(shown)))
        for at, (token, mask) in enumerate(zip(logprobs.tokens, shown, strict=True)):
            if token != mask and at < len(logprobs.top_logprobs):
                logprobs.top_logprobs[at] = self._key.mask_names(logprobs.top_logprobs[at] or {}, token)
        logprobs.tokens = shown
        choice.logprobs = logprobs

    def _read(self, index: int, tokens: list[str], *, more: bool) -> list[str]:
        """Return the tokens that can be shown, masked, and note what they said."""
        before = self._before.get(index, "")
        shown = self._key.mask_tokens(before, tokens, more=more)
        self._before[index] = (before + "".join(tokens[: len(shown)]))[-PIECE:]
        return shown

    def _mask_entries(self, logprobs: Logprobs, index: int) -> None:
        """Mask tokens in the shape of chat completions, which is kept as it came."""
        entries = logprobs.extra.get("content")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return
        tokens = [str(entry.get("token", "")) for entry in entries]
        shown = self._read(index, tokens, more=False)
        logprobs.extra["content"] = [
            entry if token == mask else {"token": mask, "logprob": entry.get("logprob")}
            for entry, token, mask in zip(entries, tokens, shown, strict=True)
        ]


def _part(logprobs: Logprobs, part: slice) -> Logprobs:
    return Logprobs(
        logprobs.tokens[part],
        logprobs.token_logprobs[part],
        logprobs.top_logprobs[part],
        logprobs.text_offset[part],
        logprobs.extra,
    )
