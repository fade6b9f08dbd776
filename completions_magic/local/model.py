"""The embedded language model: n-grams and recall, mixed into one honest probability for every token."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

from .distribution import Distribution
from .ngram import ORDER, NGram
from .recall import SETTINGS, Reading, Recall
from .vocabulary import Vocabulary, learn_merges

NAME = "pocket"
SIZE = 4096
CONTEXT_LENGTH = 16_384
"""The most tokens of a prompt and its completion together."""


class LanguageModel:
    """Learns from `documents` at once; the probabilities of the next token sum to one over the whole vocabulary."""

    def __init__(self, documents: Sequence[str], *, size: int = SIZE) -> None:
        self.vocabulary = Vocabulary(learn_merges(documents, size))
        encoded = [self.vocabulary.encode(document) for document in documents]
        self._ngram = NGram(encoded, len(self.vocabulary))
        self._recall = Recall(encoded)
        settings = f"{size} {ORDER} {SETTINGS}"
        digest = hashlib.sha256("\0".join([settings, *documents]).encode())
        self.fingerprint = f"fp_{digest.hexdigest()[:12]}"

    def read(self, tokens: Iterable[int]) -> Reading:
        """Return a reading of `tokens` from the start of a document."""
        reading = Reading(self._recall)
        for token in tokens:
            reading.read(token)
        return reading

    def distribution(self, reading: Reading) -> Distribution:
        """Return the probabilities of the token that comes next; they depend on nothing but the tokens read."""
        seen, rest = self._ngram.followers(reading.tokens)
        votes, weight = reading.votes()
        if weight:
            seen = {token: (1.0 - weight) * probability for token, probability in seen.items()}
            rest *= 1.0 - weight
            for token, share in votes.items():
                seen[token] = seen.get(token, 0.0) + weight * share
        base = self._ngram.base
        whole = {token: probability + rest * base.probabilities[token] for token, probability in seen.items()}
        return Distribution(base, whole, rest)


def corpus() -> list[str]:
    """Return the documents that the embedded model learns from: our own, dedicated to the public domain."""
    folder = resources.files(__package__) / "corpus"
    texts = sorted((entry.name, entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".txt"))
    return [document for _, text in texts for document in text.rstrip("\n").split("\n%\n")]


@cache
def pocket() -> LanguageModel:
    """Return the model of the embedded endpoint; the first call learns it."""
    return LanguageModel(corpus())
