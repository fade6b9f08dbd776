"""One choice as it grows: tokens drawn from the model, and the text that may already be shown."""

from __future__ import annotations

import codecs
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from ..schema import KNOBS, Choice, Logprobs, SamplingParameters
from .distribution import Distribution
from .model import LanguageModel
from .recall import Reading
from .vocabulary import END_OF_TEXT, Vocabulary

INFILL_CANDIDATES = 12
INFILL_LOOKAHEAD = 6
INFILL_STEPS = 400


@dataclass
class Step:
    """A token, where it was drawn from, and None or why nothing follows it."""

    token: int
    distribution: Distribution | None
    logprob: float | None


@dataclass
class Settings:
    """The sampling parameters of one request with the API's defaults filled in."""

    max_tokens: int = 16
    temperature: float = 1
    top_p: float = 1
    n: int = 1
    best_of: int = 1
    echo: bool = False
    logprobs: int | None = None
    presence_penalty: float = 0
    frequency_penalty: float = 0
    seed: int | None = None
    suffix: str | None = None
    stop: list[str] = field(default_factory=list)
    logit_bias: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: SamplingParameters) -> Settings:
        """Fill in the defaults of what `parameters` leave unset."""
        wanted = {name: parameters.to_dict().get(name, KNOBS[name].default) for name in cls.__dataclass_fields__}
        stop = wanted["stop"]
        wanted["stop"] = [text for text in ([stop] if isinstance(stop, str) else stop or []) if text]
        wanted["logit_bias"] = {int(token): bias for token, bias in (wanted["logit_bias"] or {}).items()}
        wanted["best_of"] = wanted["best_of"] or 1
        return cls(**wanted)


def draw(model: LanguageModel, reading: Reading, settings: Settings, random: Random) -> Iterator[Step]:
    """Yield up to max_tokens steps; `reading` goes on with them. It ends early at the end of the text."""
    counts: Counter[int] = Counter()
    for position in range(settings.max_tokens):
        distribution = model.distribution(reading)
        # An answer of nothing at all is of no use: the first token drawn is never the end of the text.
        drawn_from = distribution.without(END_OF_TEXT) if position == 0 else distribution
        bias = dict(settings.logit_bias)
        for token, count in counts.items() if settings.presence_penalty or settings.frequency_penalty else ():
            penalty = settings.presence_penalty + count * settings.frequency_penalty
            bias[token] = bias.get(token, 0.0) - penalty
        token = drawn_from.biased(bias).sampler(settings.temperature, settings.top_p).draw(random)
        if token == END_OF_TEXT:
            return
        counts[token] += 1
        reading.read(token)
        yield Step(token, distribution, distribution.logprob(token))


def infill(
    model: LanguageModel,
    prompt: Reading,
    settings: Settings,
    random: Random,
    glance: Callable[[], None] = lambda: None,
) -> list[Step]:
    """Return steps after which the suffix follows well; `glance` is called before each, and may raise.

    Of several continuations every place to cut is weighed by the probability of the suffix's first tokens
    there; at temperature 0 the best is taken, otherwise one is drawn by that weight.
    """
    suffix = model.vocabulary.encode(settings.suffix or "")[:INFILL_LOOKAHEAD]
    drafts: list[tuple[list[Step], int]] = []
    scores: list[float] = []
    most = max(2, min(INFILL_CANDIDATES, INFILL_STEPS // max(1, settings.max_tokens)))
    for _ in range(1 if settings.temperature == 0 else most):
        reading = prompt.copy()
        steps: list[Step] = []
        for step in draw(model, reading, settings, random):
            glance()
            steps.append(step)
            drafts.append((steps, len(steps)))
            scores.append(_logprob(model, reading.copy(), suffix))
    best = max(scores, default=0.0)
    if settings.temperature == 0 or not drafts:
        steps, length = drafts[scores.index(best)] if drafts else ([], 0)
    else:
        steps, length = random.choices(drafts, [math.exp(score - best) for score in scores])[0]
    return steps[:length]


def _logprob(model: LanguageModel, reading: Reading, tokens: Sequence[int]) -> float:
    total = 0.0
    for token in tokens:
        total += model.distribution(reading).logprob(token)
        reading.read(token)
    return total


def score(model: LanguageModel, tokens: Sequence[int]) -> list[Step]:
    """Return `tokens` as steps with the model's log-probability of each; the first has none."""
    reading = model.read([])
    steps: list[Step] = []
    for at, token in enumerate(tokens):
        distribution = model.distribution(reading) if at else None
        steps.append(Step(token, distribution, distribution.logprob(token) if distribution else None))
        reading.read(token)
    return steps


class Text:
    """The text of one choice: whole characters only, and nothing that may be part of a stop sequence."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings, index: int, start: int = 0) -> None:
        self._vocabulary = vocabulary
        self._settings = settings
        self._index = index
        self._start = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._shown = 0
        self._held: list[tuple[Step, int, int]] = []
        self.stopped = False

    def push(self, step: Step) -> Choice | None:
        """Take one token; return what may be shown now, if anything."""
        before = len(self._text)
        self._text += self._decoder.decode(self._vocabulary.pieces[step.token])
        self._held.append((step, before, len(self._text)))
        stop = self._find_stop(before)
        if stop is not None:
            self._text = self._text[:stop]
            self.stopped = True
            return self._show(stop, "stop")
        free = len(self._text) - self._unsure()
        return self._show(free, None) if free > self._shown else None

    def finish(self, reason: str) -> Choice:
        """Return what is left, with the finish_reason."""
        before = len(self._text)
        self._text += self._decoder.decode(b"", final=True)
        stop = self._find_stop(before)
        if stop is not None:
            self._text, reason = self._text[:stop], "stop"
        return self._show(len(self._text), reason)

    def _find_stop(self, before: int) -> int | None:
        found = [self._text.find(stop, max(self._shown, before - len(stop) + 1)) for stop in self._settings.stop]
        return min((at for at in found if at >= 0), default=None)

    def _unsure(self) -> int:
        """Return how many characters at the end may be the beginning of a stop sequence."""
        held = range(self._shown, len(self._text))
        stops = self._settings.stop
        return len(self._text) - next(
            (at for at in held if any(stop.startswith(self._text[at:]) for stop in stops)), len(self._text)
        )

    def _show(self, end: int, reason: str | None) -> Choice:
        text = self._text[self._shown : end]
        ready = [held for held in self._held if (held[2] <= end if reason is None else held[1] < end or not end)]
        self._held = [held for held in self._held if held not in ready] if reason is None else []
        self._shown = end
        logprobs = None
        if self._settings.logprobs is not None:
            logprobs = describe(
                [step for step, _, _ in ready],
                [self._start + begin for _, begin, _ in ready],
                self._settings.logprobs,
                self._vocabulary,
            )
        return Choice(text, self._index, reason, logprobs)


def describe(steps: Sequence[Step], offsets: Sequence[int], count: int, vocabulary: Vocabulary) -> Logprobs:
    """Return the API's four lists for `steps`: `count` alternatives each, and always the chosen token."""
    tops: list[dict[str, float] | None] = []
    for step in steps:
        if step.distribution is None or step.logprob is None:
            tops.append(None)
            continue
        top: dict[str, float] = {}
        for token, logprob in step.distribution.top(count):
            top.setdefault(token_text(vocabulary, token), logprob)
        top.setdefault(token_text(vocabulary, step.token), step.logprob)
        tops.append(top)
    tokens = [token_text(vocabulary, step.token) for step in steps]
    return Logprobs(tokens, [step.logprob for step in steps], tops, list(offsets))


def token_text(vocabulary: Vocabulary, token: int) -> str:
    """Return a token as the API writes it: text, or `bytes:` and its bytes where it is a part of a character."""
    if token == END_OF_TEXT:
        return "<|endoftext|>"
    piece = vocabulary.pieces[token]
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
