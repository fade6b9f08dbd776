"""The words of the completions API: its sampling parameters, its request and its answer.

The seed's parameters and the rest of the public specification stand in one table, `SamplingParameters`; the
option parser, its help, Tab completion, the request body and the embedded endpoint's refusals all read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .errors import ConfigurationError, DecodeError, PromptError, shorten
from .frame import frame_of
from .record import provenance, record

if TYPE_CHECKING:
    import pandas as pd

    from .client import Client
    from .distribution import DistributionView
    from .tokens import TokenView

Prompt = str | list[str] | list[int] | list[list[int]]
"""A text, a list of texts, token ids, or a list of token-id lists."""

Stop = str | Annotated[list[str], Meta(min_length=1, max_length=4)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


def _meta(description: str, default: object, **bounds: Any) -> Meta:
    return Meta(description=description, extra={"default": default}, **bounds)


class SamplingParameters(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The table of sampling parameters: name, type, range, description and the API's default of each.

    A parameter that is not set is not sent, so that the server's default stays the server's.
    """

    max_tokens: Annotated[int, _meta("most tokens to generate", 16, ge=0)] | UnsetType = UNSET
    temperature: Annotated[float, _meta("0 always takes the likeliest token, 2 is wild", 1, ge=0, le=2)] | UnsetType = (
        UNSET
    )
    top_p: (
        Annotated[float, _meta("sample only from the likeliest tokens that hold this much probability", 1, ge=0, le=1)]
        | UnsetType
    ) = UNSET
    n: Annotated[int, _meta("how many completions of each prompt", 1, ge=1, le=128)] | UnsetType = UNSET
    stop: Annotated[Stop, _meta("end before this text (up to four)", None)] | UnsetType = UNSET
    suffix: Annotated[str, _meta("the text that follows the completion", None)] | UnsetType = UNSET
    echo: Annotated[bool, _meta("give the prompt back before the completion", default=False)] | UnsetType = UNSET
    stream: Annotated[bool, _meta("send the answer as it grows", default=False)] | UnsetType = UNSET
    seed: (
        Annotated[int, _meta("the same seed asks for the same sample", None, ge=-(2**63), le=2**63 - 1)] | UnsetType
    ) = UNSET
    logprobs: (
        Annotated[int, _meta("log-probabilities of the chosen token and this many of the likeliest", None, ge=0)]
        | UnsetType
    ) = UNSET
    best_of: (
        Annotated[int, _meta("generate this many, return the likeliest n; never streamed", 1, ge=0, le=20)] | UnsetType
    ) = UNSET
    presence_penalty: (
        Annotated[float, _meta("above 0: fewer tokens that have occurred already", 0, ge=-2, le=2)] | UnsetType
    ) = UNSET
    frequency_penalty: (
        Annotated[float, _meta("above 0: fewer tokens that have occurred often", 0, ge=-2, le=2)] | UnsetType
    ) = UNSET
    logit_bias: (
        Annotated[dict[str, Bias], _meta('add -100 to 100 to token ids, as JSON: {"50": -100}', None)] | UnsetType
    ) = UNSET
    user: Annotated[str, _meta("a name for the end user, for the server's own records", None)] | UnsetType = UNSET
    stream_options: (
        Annotated[dict[str, Any], _meta('with stream, as JSON: {"include_usage": true}', None)] | UnsetType
    ) = UNSET

    def to_dict(self) -> dict[str, Any]:
        """Return what was set, by name, in the table's order."""
        pairs = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in pairs if value is not UNSET}

    def __reduce__(self) -> tuple[Callable[..., SamplingParameters], tuple[dict[str, Any]]]:
        # What is not set takes most of the time of pickling a request: workers and rows on disk go without it.
        return _of_dict, (self.to_dict(),)


def _of_dict(chosen: dict[str, Any]) -> SamplingParameters:
    return SamplingParameters(**chosen)


@dataclass(frozen=True)
class Knob:
    """One row of the table of sampling parameters, as its readers need it."""

    name: str
    type: Any
    description: str
    default: object
    low: float | None
    high: float | None

    @property
    def range(self) -> str:
        """The range in words, such as `0 to 2`, `at least 1`, or an empty text."""
        if self.low is not None and self.high is not None:
            return "any 64-bit integer" if self.high == 2**63 - 1 else f"{self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.low is not None else ""

    @property
    def kind(self) -> str:
        """What a value is, in a person's words: `an integer`, `a number`, `true or false`, `text`, `JSON`."""
        names = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
        if get_origin(self.type) is dict:
            return "a JSON object"
        return names.get(self.type, "text, or a list of one to four texts")

    def convert(self, value: object) -> Any:
        """Return `value`, or what its text spells, in the parameter's type; raise ValueError in words."""
        if isinstance(value, str):
            value = self._read(value)
        if get_origin(self.type) is dict and isinstance(value, Mapping):
            value = {str(key): entry for key, entry in value.items()}
        if hasattr(value, "item") and hasattr(value, "dtype"):
            value = value.item()  # numpy's numbers are not Python's
        return self.check(value)

    def _read(self, text: str) -> object:
        if self.type not in (int, float, bool) and get_origin(self.type) is not dict:
            return text
        for read in (int, float, json.loads):
            try:
                return read(text)
            except (ValueError, RecursionError):
                continue
        return text

    def check(self, value: object) -> Any:
        """Return `value` where it has the parameter's type and range; raise ValueError in words."""
        if isinstance(value, bool) is not (self.type is bool) or (isinstance(value, float) and not isfinite(value)):
            raise ValueError(self._expectation(value))
        try:
            checked = msgspec.convert({self.name: value}, SamplingParameters).to_dict()[self.name]
        except (msgspec.ValidationError, TypeError, OverflowError):
            raise ValueError(self._expectation(value)) from None
        return value if isinstance(value, int) else checked  # 1 stays 1: it is sent as it was written

    def _expectation(self, value: object) -> str:
        wanted = f"{self.kind}, {self.range}" if self.range else self.kind
        if get_origin(self.type) is dict:
            wanted += " of token ids to numbers from -100 to 100" if self.name == "logit_bias" else ""
        return f"takes {wanted}, not {shorten(repr(value), 60)}"


def _read_table() -> dict[str, Knob]:
    knobs = {}
    for name, hint in get_type_hints(SamplingParameters, include_extras=True).items():
        annotated = next(part for part in get_args(hint) if get_origin(part) is Annotated)
        base, meta = get_args(annotated)
        knobs[name] = Knob(name, base, meta.description, meta.extra["default"], meta.ge, meta.le)
    return knobs


KNOBS: dict[str, Knob] = _read_table()


def check_prompt(prompt: object) -> Prompt:
    """Return `prompt` as the API takes it; raise PromptError, which says what it takes, when it is none."""
    if isinstance(prompt, str):
        values: object = prompt
    elif isinstance(prompt, Iterable) and not isinstance(prompt, (bytes, Mapping)):
        listed = getattr(prompt, "tolist", None)
        values = listed() if callable(listed) else list(prompt)
    else:
        raise PromptError(f"a prompt is text, a list of texts, or token ids, not {type(prompt).__name__}")
    if values == []:
        raise PromptError("the prompt is an empty list")
    shapes: tuple[Any, ...] = (str, list[str], list[int], list[Annotated[list[int], Meta(min_length=1)]])
    for shape in shapes:
        try:
            checked: Prompt = msgspec.convert(values, shape)
        except msgspec.ValidationError:
            continue
        _check_text(checked)
        return checked
    raise PromptError("a prompt list holds only texts, only token ids, or only lists of token ids")


def _check_text(prompt: Prompt) -> None:
    for text in [prompt] if isinstance(prompt, str) else prompt:
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise PromptError(
                    f"the prompt holds half a surrogate pair at character {error.start}: it is not valid text"
                ) from None


_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class CompletionRequest(msgspec.Struct, kw_only=True, frozen=True, eq=True):
    """What is sent to `POST /v1/completions`: the prompt, the model, what was set, and any other body field."""

    prompt: Prompt
    model: str | None = None
    parameters: SamplingParameters = SamplingParameters()
    extra: dict[str, Any] = {}

    @classmethod
    def build(cls, /, prompt: object, *, model: str | None = None, **parameters: Any) -> CompletionRequest:
        """Check everything that can be checked before sending.

        A parameter of None counts as not set; a field that the table does not know is passed on as it is.
        Raises PromptError, or ConfigurationError naming the parameter and its range.
        """
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in parameters.items():
            if value is UNSET or (value is None and name in KNOBS):
                continue
            if name not in KNOBS:
                extra[name] = value
                continue
            try:
                known[name] = KNOBS[name].convert(value)
            except ValueError as error:
                raise ConfigurationError(f"{name} {error}") from None
        return cls(prompt=check_prompt(prompt), model=model, parameters=SamplingParameters(**known), extra=extra)

    def body(self) -> dict[str, Any]:
        """Return the JSON body: model, prompt, then only what was set."""
        named = {} if self.model is None else {"model": self.model}
        return {**named, "prompt": self.prompt, **self.parameters.to_dict(), **self.extra}

    def encode(self) -> bytes:
        """Return the body as UTF-8 JSON."""
        try:
            return _as_json(self.body()).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the request cannot be written as JSON: {error}") from None

    @property
    def prompts(self) -> int:
        """How many prompts there are: a list of token ids is one."""
        many = isinstance(self.prompt, list) and bool(self.prompt) and not isinstance(self.prompt[0], int)
        return len(self.prompt) if many else 1

    @property
    def choices(self) -> int:
        """How many choices the server was asked for: prompts times n."""
        return self.prompts * (1 if self.parameters.n is UNSET else self.parameters.n)


# Fields of our own, under names that no server uses: noncharacters.
_OURS = {"extra": "\ufdd0", "request": "\ufdd1"}
USUAL = "text_completion"


class Usage(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, rename=_OURS):
    """How many tokens were read and generated, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    extra: dict[str, Any] = {}


class Logprobs(msgspec.Struct, forbid_unknown_fields=True, rename=_OURS):
    """Four lists of one length: tokens, their log-probabilities, the alternatives, and where each begins.

    Natural logarithms; `text_offset` counts characters, from the start of the prompt when it is echoed. The
    first log-probability of an echoed prompt is None.
    """

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []
    text_offset: list[int] = []
    extra: dict[str, Any] = {}

    def __add__(self, other: Logprobs) -> Logprobs:
        return Logprobs(
            self.tokens + other.tokens,
            self.token_logprobs + other.token_logprobs,
            self.top_logprobs + other.top_logprobs,
            self.text_offset + other.text_offset,
            {**self.extra, **other.extra},
        )


class Choice(msgspec.Struct, forbid_unknown_fields=True, rename=_OURS):
    """One completion of one prompt; `finish_reason` is None until the server has stated it."""

    text: str = ""
    index: int = 0
    finish_reason: Annotated[str, Meta(min_length=1)] | None = None
    logprobs: Logprobs | None = None
    extra: dict[str, Any] = {}


PIECES = 1024
UNFINISHED = (None, "", "interrupted", "stopped", "error")


class Completion(msgspec.Struct, dict=True, forbid_unknown_fields=True, rename=_OURS):
    """An answer of `POST /v1/completions`, whole or a chunk of one; the sum of the chunks is the answer.

    Fields that the API does not name are kept in `extra`. `request` is what was asked, where that is known;
    it does not count in comparisons.
    """

    id: str = ""
    object: str = USUAL
    created: int = 0
    model: str = ""
    choices: list[Choice] = []
    usage: Usage | None = None
    system_fingerprint: Annotated[str, Meta(min_length=1)] | None = None
    extra: dict[str, Any] = {}
    if TYPE_CHECKING:
        request: CompletionRequest | None = None
    else:
        request: Any = None  # what it holds is written and never read

    @classmethod
    def sum(cls, chunks: Iterable[Completion]) -> Completion:
        """Return all `chunks` as one completion, in time proportional to their text."""
        growing = Growing()
        for chunk in chunks:
            growing.add(chunk)
        return growing.completion()

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> Completion:
        """Return the completion that a decoded JSON object describes; raise DecodeError where it is none.

        Missing and null fields are taken as unknown, since real servers leave out all of them at times.
        """
        rest = dict(answer)
        choices = rest.pop("choices", None) or []
        if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
            raise DecodeError("the answer's choices are not a list of objects")
        created = rest.pop("created", None)
        return cls(
            id=_text(rest.pop("id", None)),
            object=_text(rest.pop("object", None)) or USUAL,
            created=_whole_number(created),
            model=_text(rest.pop("model", None)),
            choices=[_choice(choice) for choice in choices],
            usage=_usage(rest.pop("usage", None)),
            system_fingerprint=_text(rest.pop("system_fingerprint", None)) or None,
            extra=rest,
        )

    @classmethod
    def from_chunks(cls, payloads: Sequence[bytes]) -> list[Completion] | None:
        """Return the completions in chunks of one line of JSON each, at a quarter of the cost of `from_dict`.

        None where any is unusual, so that only `from_dict` understands it.
        """
        try:
            completions = _decode_lines(b"\n".join(payloads))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        usual = [one for one in completions if one.choices and one.object == USUAL]
        return completions if len(usual) == len(completions) == len(payloads) else None

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text if self.choices else ""

    @property
    def texts(self) -> list[str]:
        """The text of every choice, by index."""
        return [choice.text for choice in self.choices]

    @property
    def finished(self) -> bool:
        """True only when every choice ended in a way that the server stated."""
        return bool(self.choices) and all(choice.finish_reason not in UNFINISHED for choice in self.choices)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as the API writes it, unknown fields included."""
        answer: dict[str, Any] = {"id": self.id, "object": self.object, "created": self.created, "model": self.model}
        answer["choices"] = [_choice_dict(choice) for choice in self.choices]
        if self.system_fingerprint is not None:
            answer["system_fingerprint"] = self.system_fingerprint
        if self.usage is not None:
            answer["usage"] = _flat(self.usage)
        return {**answer, **self.extra}

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with one row a choice: index, text, finish_reason, tokens, logprob.

        `tokens` counts the tokens with log-probabilities and `logprob` is their sum; both are missing where
        none were asked for. Needs pandas: raises ConfigurationError with the install command without it.
        """
        rows = [row_of(choice) for choice in self.choices]
        columns = {name: [row[name] for row in rows] for name in row_of(Choice())}
        return frame_of(columns).set_index("index")

    def remember(self, client: Client) -> Self:
        """Keep who made this, for `tokens`; a copy does not know it, nor does a file. Return the completion."""
        vars(self)["client"] = client
        return self

    def tokens(self, client: Client | None = None, bind: Callable[[str, Completion], None] | None = None) -> TokenView:
        """Return the token view: choose another token anywhere, and the text goes on from there.

        It asks `client`, by default the one that made this; `bind` takes a variable's name and a branch. Raises
        ConfigurationError where there is no client, or no log-probabilities.
        """
        from .tokens import TokenView

        client = client or vars(self).get("client")
        if client is None:
            raise ConfigurationError("the completion does not know the client that made it: give one, tokens(client)")
        return TokenView(self, client, bind)

    def distribution(self, choice: int = 0, token: int = 0, vocabulary: int | None = None) -> DistributionView:
        """Return what sampling parameters would make of a token's distribution, with sliders; nothing is asked for it.

        `vocabulary` is how many tokens the model knows, where you know. Raises ConfigurationError where there are no
        log-probabilities.
        """
        from .distribution import DistributionView

        return DistributionView(self, choice, token, vocabulary)

    def __add__(self, other: Completion) -> Completion:
        return Completion.sum((self, other))

    def __eq__(self, other: Any) -> bool:  # noqa: PYI032  # `object` is a field here
        return isinstance(other, Completion) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable, like every struct with lists

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        parts = [shorten(repr(self.text), 72)]
        if len(self.choices) > 1:
            parts.append(f"choices={len(self.choices)}")
        if self.choices:
            parts.append(f"finish_reason={self.choices[0].finish_reason!r}")
        return f"Completion({', '.join(parts)})"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return record(self), provenance(self)


_decode_lines = msgspec.json.Decoder(Completion).decode_lines


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _whole_number(value: object) -> int:
    try:
        return int(value) if isinstance(value, (int, float)) else 0
    except (ValueError, OverflowError):
        return 0


def _usage(value: object) -> Usage | None:
    if not isinstance(value, Mapping):
        return None
    counts = {name: value.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    known = {name: count if isinstance(count, int) else 0 for name, count in counts.items()}
    return Usage(**known, extra={name: field for name, field in value.items() if name not in counts})


def _choice(value: Mapping[str, Any]) -> Choice:
    rest = dict(value)
    index = rest.pop("index", None)
    return Choice(
        text=_text(rest.pop("text", None)),
        index=index if isinstance(index, int) else 0,
        finish_reason=_text(rest.pop("finish_reason", None)) or None,
        logprobs=_logprobs(rest.pop("logprobs", None)),
        extra=rest,
    )


def _logprobs(value: object) -> Logprobs | None:
    if not isinstance(value, Mapping):
        return None
    names = [name for name in Logprobs.__struct_fields__ if name != "extra"]
    lists = {name: value[name] for name in names if value.get(name) is not None}
    try:
        known = msgspec.convert(lists, Logprobs)
    except msgspec.ValidationError:
        # Another shape, such as that of chat completions: kept, and not understood.
        return Logprobs(extra=dict(value))
    known.extra = {name: field for name, field in value.items() if name not in names}
    return known


def _flat(part: Usage | Logprobs) -> dict[str, Any]:
    named = {name: getattr(part, name) for name in part.__struct_fields__ if name != "extra"}
    return {**named, **part.extra}


def _choice_dict(choice: Choice) -> dict[str, Any]:
    return {
        "text": choice.text,
        "index": choice.index,
        "logprobs": None if choice.logprobs is None else _flat(choice.logprobs),
        "finish_reason": choice.finish_reason,
        **choice.extra,
    }


def row_of(choice: Choice) -> dict[str, Any]:
    """Return a choice as a frame's row; the number of scored tokens and their sum are None where there are none."""
    scores = choice.logprobs.token_logprobs if choice.logprobs else []
    known = [score for score in scores if score is not None]
    return {
        "index": choice.index,
        "text": choice.text,
        "finish_reason": choice.finish_reason,
        "tokens": len(known) if choice.logprobs else None,
        "logprob": sum(known) if choice.logprobs else None,
    }


class Growing:
    """A completion that chunks are added to, each in time proportional to itself.

    Chunks of different choices may come in any order; those of one choice in the order of their text. Another thread
    may read the texts meanwhile.
    """

    def __init__(self) -> None:
        self._whole = Completion(choices=[], extra={})
        self._pieces: dict[int, list[str]] = {}
        self._joined: dict[int, int] = {}  # how many of the pieces were made of many
        self._choices: dict[int, Choice] = {}
        self._started = False
        self._id: str | None = None  # of the chunks whose head is known

    def add(self, chunk: Completion) -> None:
        """Add one chunk: texts and logprobs are joined by index, of everything else the last known counts."""
        if chunk.id != self._id or chunk.system_fingerprint or chunk.usage is not None or chunk.extra:
            self._note(chunk)
        for choice in chunk.choices:
            pieces = self._pieces.get(choice.index)
            if pieces is None:
                self._begin(choice)
            else:
                pieces.append(choice.text)
                if len(pieces) > PIECES:
                    self._join(choice.index)
                if choice.finish_reason or choice.logprobs is not None or choice.extra:
                    _extend(self._choices[choice.index], choice)

    def _note(self, chunk: Completion) -> None:
        """Take from a chunk what it says of the whole answer; most say nothing new."""
        whole = self._whole
        self._started = True
        self._id = chunk.id or None
        whole.id = whole.id or chunk.id
        whole.model = whole.model or chunk.model
        whole.created = whole.created or chunk.created
        whole.object = chunk.object
        whole.request = chunk.request or whole.request
        whole.system_fingerprint = chunk.system_fingerprint or whole.system_fingerprint
        if chunk.usage is not None and (whole.usage is None or chunk.usage.total_tokens):
            whole.usage = chunk.usage
        if chunk.extra:
            whole.extra = {**whole.extra, **chunk.extra}

    def _begin(self, choice: Choice) -> None:
        logprobs = None if choice.logprobs is None else Logprobs() + choice.logprobs
        self._joined[choice.index] = 0
        self._pieces[choice.index] = [choice.text]
        self._choices[choice.index] = Choice("", choice.index, choice.finish_reason, logprobs, choice.extra)

    def _join(self, index: int) -> None:
        """Hold many pieces as one: each by itself takes sixty bytes."""
        pieces, joined = self._pieces[index], self._joined[index]
        if joined > PIECES // 2:
            joined = 0
        pieces[joined:] = ["".join(pieces[joined:])]  # in one step: who reads meanwhile sees no text twice
        self._joined[index] = joined + 1

    def completion(self, *, ended: str | None = None) -> Completion:
        """Return what has been added so far; `ended` is the finish_reason of choices that have none yet."""
        choices = []
        for index in sorted(self._choices):
            known = self._choices[index]
            logprobs = None if known.logprobs is None else Logprobs() + known.logprobs
            reason = known.finish_reason or ended
            choices.append(Choice("".join(self._pieces[index]), index, reason, logprobs, known.extra))
        return msgspec.structs.replace(self._whole, choices=choices)

    def __bool__(self) -> bool:
        return any(map(any, self._pieces.values()))

    @property
    def started(self) -> bool:
        """True once a chunk was added."""
        return self._started

    @property
    def has_choices(self) -> bool:
        """True once a chunk held a choice."""
        return bool(self._choices)

    def finished(self) -> bool:
        """Say whether every choice seen so far has a finish_reason."""
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())


def _extend(known: Choice, choice: Choice) -> None:
    if choice.finish_reason:
        known.finish_reason = choice.finish_reason
    if choice.extra:
        known.extra = {**known.extra, **choice.extra}
    more = choice.logprobs
    if more is None:
        return
    whole = known.logprobs
    if whole is None:
        known.logprobs = Logprobs() + more
        return
    whole.tokens.extend(more.tokens)
    whole.token_logprobs.extend(more.token_logprobs)
    whole.top_logprobs.extend(more.top_logprobs)
    whole.text_offset.extend(more.text_offset)


class Model(msgspec.Struct):
    """A model that an endpoint offers."""

    id: str
    owned_by: str = ""
    created: int = 0
    extra: dict[str, Any] = {}


def read_models(answer: object) -> list[Model]:
    """Return the models that the decoded answer of `GET /v1/models` lists; raise DecodeError if it lists none."""
    listed: object = answer.get("data", answer.get("models")) if isinstance(answer, Mapping) else answer
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise DecodeError("the answer is not a list of models")
    return list(_models(listed))


def _models(listed: Sequence[Any]) -> Iterator[Model]:
    for entry in listed:
        if isinstance(entry, str):
            yield Model(entry)
        elif isinstance(entry, Mapping) and ("id" in entry or "name" in entry):
            rest = dict(entry)
            name = _text(rest.pop("id", None)) or _text(rest.get("name"))
            created = rest.pop("created", None)
            yield Model(name, _text(rest.pop("owned_by", None)), created if isinstance(created, int) else 0, rest)
