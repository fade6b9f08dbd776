"""The grammar of the line: one table of options, read by the parser, the help, Tab completion and the README."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .binding import FORMS
from .cassette import MODES
from .errors import OptionError, nearest, shorten
from .grid import Axis, read_axis
from .likelihood import MEASURES
from .schema import KNOBS

ESCAPES = re.compile(r"\\(n|t|r|\\|u[0-9A-Fa-f]{4})")


@dataclass(frozen=True)
class Option:
    """One option: its flags, the word for its value (none for a switch), its group and what it does."""

    flags: tuple[str, ...]
    name: str
    value: str | None
    group: str
    help: str
    repeats: bool = False
    sets: bool = True


def _of_knob(name: str) -> list[Option]:
    knob = KNOBS[name]
    long = "--" + name.replace("_", "-")
    bounds = f" ({knob.range})" if knob.range and "64-bit" not in knob.range else ""
    help_ = knob.description + bounds
    if knob.type is bool:
        return [
            Option((long,), name, None, "request", help_),
            Option(("--no-" + name.replace("_", "-"),), name, None, "request", f"do not: {help_}", sets=False),
        ]
    if name == "stop":
        return [Option((long,), name, "S", "request", help_ + r"; \n, \t, \\ and \uXXXX are escapes", repeats=True)]
    value = {"an integer": "N", "a number": "X", "a JSON object": "JSON"}.get(knob.kind, "TEXT")
    return [Option(("-n", long) if name == "n" else (long,), name, value, "request", help_)]


OPTIONS: tuple[Option, ...] = (
    Option(("-m", "--model"), "model", "NAME", "request", "the model"),
    *(option for name in KNOBS for option in _of_knob(name)),
    Option(("-p",), "p", "KEY=VALUE", "request", "any other field of the body, as JSON where it is JSON", repeats=True),
    Option(("--prompt",), "prompt", "VALUE", "source", "the prompt: a text, a list of texts, or token ids"),
    Option(
        ("-i", "--inputs"),
        "inputs",
        "NAME",
        "source",
        "a request for each row of this variable; {{ column }} in the prompt",
    ),
    Option(("--raw",), "raw", None, "source", "no substitution: {{ name }} is sent as it stands"),
    Option(("-o", "--out"), "out", "NAME", "binding", "the variable that takes the answer"),
    Option(("--as",), "form", "FORM", "binding", f"what it takes: {', '.join(FORMS)}"),
    Option(("--extract",), "extract", "REGEX", "binding", "each named group of the first match becomes a variable"),
    Option(("-q", "--quiet"), "quiet", None, "binding", "show nothing"),
    Option(("--view",), "view", "KIND", "binding", "how it shows while it comes: auto, widget, text, none"),
    Option(("--tune",), "tune", None, "tuning", "a panel of knobs; one click writes the line back"),
    Option(
        ("--sweep",), "sweep", "NAME=VALUES", "tuning", "ask for each of a,b,c or low:high:count; a grid", repeats=True
    ),
    Option(("--concurrency",), "concurrency", "K", "tuning", "how many requests of a sweep, or of rows, at once"),
    Option(("--pack",), "pack", "K", "tuning", "send K rows as the prompts of one request"),
    Option(("--executor",), "executor", "NAME", "tuning", "ask from the workers of this concurrent.futures.Executor"),
    Option(
        ("--score",),
        "score",
        "NAME",
        "tuning",
        "how likely each of these texts is to follow: a list, or a column",
    ),
    Option(("--score-by",), "score_by", "MEASURE", "tuning", f"what makes one the best: {', '.join(MEASURES)}"),
    Option(("--score-context",), "score_context", "TEXT", "tuning", "what pmi takes for no context; '' leaves it out"),
    Option(("--max-rps",), "max_rps", "X", "tuning", "most requests a second"),
    Option(("--budget",), "budget", "tokens=N", "tuning", "stop asking for rows when so much is spent; or requests=N"),
    Option(
        ("--journal", "--cassette"),
        "cassette",
        "PATH",
        "reproducing",
        "record the answer in this file, or replay it from there",
    ),
    Option(("--record",), "record", "MODE", "reproducing", f"what may be asked and written: {', '.join(MODES)}"),
    Option(("--sample",), "sample", "K", "reproducing", "replay the K-th recording of this request"),
    Option(("--profile",), "profile", "NAME", "where", "the endpoint, by name"),
    Option(("--base-url",), "base_url", "URL", "where", "the endpoint, by address, up to /v1"),
    Option(("--api-key-env",), "api_key_env", "VAR", "where", "the environment variable that holds its key"),
    Option(
        ("--api-key-from",), "api_key_from", "PLACE", "where", "or where else it is: .env:NAME, keyring:NAME, prompt"
    ),
    Option(("--allow-http",), "allow_http", None, "where", "let the key go to another machine without TLS"),
    Option(("--connect-timeout",), "connect_timeout", "S", "where", "longest wait for a connection, in seconds"),
    Option(("--first-token-timeout",), "first_token_timeout", "S", "where", "longest wait for the first token"),
    Option(("--timeout",), "timeout", "S", "where", "longest silence between tokens, in seconds"),
    Option(("--retries",), "retries", "K", "where", "how often to try again before anything has arrived"),
    Option(("--bg",), "background", None, "where", "return at once; the answer is bound when it has ended"),
    Option(("--dry-run",), "dry_run", None, "where", "show the request, send nothing"),
    Option(("--no-raise-error",), "raise_error", None, "where", "show an error without failing the cell", sets=False),
    Option(("-h", "--help"), "help", None, "where", "show this table"),
)

ESCAPED = ("stop", "suffix", "score_context")
CHOICES: dict[str, Collection[str]] = {"form": FORMS, "record": MODES, "score_by": MEASURES}
BY_FLAG: dict[str, Option] = {flag: option for option in OPTIONS for flag in option.flags}


@dataclass
class Options:
    """A line, read: `parameters` are the sampling parameters, `extra` any other body fields; None is not set."""

    parameters: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    prompt: Any = None
    raw: bool = False
    out: str | None = None
    form: str | None = None
    extract: str | None = None
    quiet: bool = False
    view: str | None = None
    tune: bool = False
    inputs: Any = None
    pack: int | None = None
    executor: Any = None
    score: Any = None
    score_by: str | None = None
    score_context: str | None = None
    max_rps: float | None = None
    budget: dict[str, int] | None = None
    sweep: list[Axis] | None = None
    concurrency: int | None = None
    cassette: str | None = None
    record: str | None = None
    sample: int | None = None
    profile: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_from: str | None = None
    allow_http: bool = False
    connect_timeout: float | None = None
    first_token_timeout: float | None = None
    timeout: float | None = None
    retries: int | None = None
    background: bool = False
    dry_run: bool = False
    raise_error: bool = True
    help: bool = False


@dataclass(frozen=True)
class Word:
    """A word of the line without its quotes, whether any part of it was quoted, and where it begins and ends."""

    text: str
    quoted: bool
    start: int
    end: int


def next_word(line: str, at: int) -> Word | None:
    r"""Return the word at or after place `at`, or None at the end; raise OptionError at an open quote.

    Quotes as in a POSIX shell: within single ones everything is itself; within double ones a backslash escapes
    a double quote or a backslash. Outside quotes it escapes a blank, a quote or a backslash, and is itself
    before anything else, so that --stop \n means what it looks like. A JSON list or object is one word as it is.
    """
    while at < len(line) and line[at].isspace():
        at += 1
    if at == len(line):
        return None
    start, quote, quoted, text = at, "", False, []
    literal = _json_word(line, at)
    if literal is not None:
        return Word(line[at:literal], quoted=False, start=at, end=literal)
    while at < len(line) and (quote or not line[at].isspace()):
        sign = line[at]
        following = line[at + 1 : at + 2]
        if sign == quote:
            quote = ""
        elif not quote and sign in "\"'":
            quote, quoted = sign, True
        elif sign == "\\" and quote != "'" and following and following in ('"\\' if quote else "\"'\\ "):
            text.append(following)
            at += 1
        else:
            text.append(sign)
        at += 1
    if quote:
        raise OptionError(f"the quote {quote} that opens at {shorten(line[start:], 30)!r} is not closed")
    return Word("".join(text), quoted, start, at)


def _json_word(line: str, at: int) -> int | None:
    """Return where an unquoted JSON list or object ends that begins at `at`, or after a NAME= there, or None."""
    start = re.compile(r"(?:[\w-]+=)?(?=[\[{])").match(line, at)
    if start is None:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(line, start.end())
    except (ValueError, RecursionError):
        return None
    return end if end == len(line) or line[end].isspace() else None


def parse(line: str, names: Mapping[str, Any], *, prompt_follows: bool = False) -> tuple[Options, str]:
    """Read the options of `line`; return them, and the text that begins at the first word that is none.

    `names` resolves a value that is exactly `$name`. Unless `prompt_follows`, a word that is no option is an
    error. Raises OptionError, which names the flag.
    """
    options, given, at = Options(), set[str](), 0
    read = _flag_word if prompt_follows else next_word
    while (word := read(line, at)) is not None:
        if word.text == "--" and not word.quoted and prompt_follows:
            return options, line[word.end :].removeprefix(" ")
        option, value, at = _read_option(line, word)
        name = option.name
        if name == "p" and value is not None:
            field = value.text.partition("=")[0]
            name = field if field in KNOBS else f"-p {field}"
        if name in given and not (option.repeats and option.name == name):
            raise OptionError(f"{option.flags[-1] if option.name == name else name} is given twice")
        given.add(name)
        _store(options, option, value, names)
    return options, line[at:].lstrip() if prompt_follows else ""


def _flag_word(line: str, at: int) -> Word | None:
    rest = line[at:].lstrip()
    return next_word(line, at) if re.match(r"--?\w|--(?:\s|$)", rest) else None


def _read_option(line: str, word: Word) -> tuple[Option, Word | None, int]:
    """Return the option that `word` names, its value, and where the line goes on."""
    flag, equals, inline = word.text.partition("=")
    known = _option(word.text)
    if known is None:
        raise OptionError(_unknown(flag))
    if known.value is None:
        if equals:
            raise OptionError(f"{flag} takes no value")
        return known, None, word.end
    if equals:
        return known, Word(inline, word.quoted, word.start, word.end), word.end
    value = next_word(line, word.end)
    if value is None or (not value.quoted and _option(value.text) is not None):
        raise OptionError(f"{flag} wants a value: {flag} {known.value}")
    return known, value, value.end


def _option(word: str) -> Option | None:
    """Return the option that a word names, in any spelling and with or without `=value`."""
    flag = word.partition("=")[0]
    return BY_FLAG.get("--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag)


def _unknown(flag: str) -> str:
    bare = flag.lstrip("-").replace("_", "-")
    if bare in ("api-key", "key", "token"):
        return "a key never goes on the line: --api-key-env or --api-key-from names the place where it is"
    shown = shorten(flag, 24)
    if not flag.startswith("-"):
        hint = f" (did you mean --{bare}?)" if "--" + bare in BY_FLAG else ""
        return f"{shown!r} is no option{hint}: the prompt goes below the line, and a value with blanks in quotes"
    return f"unknown option {shown}{nearest('--' + bare, BY_FLAG)}"


def _store(options: Options, option: Option, word: Word | None, names: Mapping[str, Any]) -> None:
    flag, name = option.flags[-1], option.name
    value: Any = option.sets if word is None else _value(word, flag, names)
    literal = word is not None and isinstance(value, str) and value == word.text
    if literal and name in ESCAPED:
        value = unescape(value)
    if name in PAIRS and word is not None:
        PAIRS[name](options, word, names)
    elif name in KNOBS:
        if name == "stop" and "stop" in options.parameters:
            value = [*_listed(options.parameters["stop"]), *_listed(_converted(flag, name, value))]
        options.parameters[name] = _converted(flag, name, value)
    elif name in ("inputs", "prompt", "executor", "score"):
        setattr(options, name, _prompt(value) if literal and name == "prompt" else value)
    elif name in NUMBERS:
        setattr(options, name, _number(flag, value, least=NUMBERS[name]))
    elif name in CHOICES and (not isinstance(value, str) or value not in CHOICES[name]):
        known = CHOICES[name]
        raise OptionError(
            f"{flag} takes {', '.join(known)}, not {shorten(repr(value), 40)}{nearest(str(value), known)}"
        )
    else:
        if name == "cassette" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if word is not None and not isinstance(value, str):
            raise OptionError(f"{flag} takes text, not {type(value).__name__}")
        setattr(options, name, value)


def _value(word: Word, flag: str, names: Mapping[str, Any]) -> Any:
    """Return the text of `word`, or the object that it names as `$name`."""
    if word.quoted or not re.fullmatch(r"\$[^\W\d]\w*", word.text):
        return word.text
    name = word.text[1:]
    if name not in names or name.startswith("_"):
        raise OptionError(f"{flag}: there is no variable {name!r}{nearest(name, names)}")
    return names[name]


def _converted(flag: str, name: str, value: Any) -> Any:
    try:
        return KNOBS[name].convert(value)
    except ValueError as error:
        raise OptionError(f"{flag} {error}") from None


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def _store_field(options: Options, field: Word, names: Mapping[str, Any]) -> None:
    key, equals, text = field.text.partition("=")
    if not equals or not key:
        raise OptionError(f"-p takes KEY=VALUE, not {shorten(field.text, 40)!r}")
    if key in ("model", "prompt"):
        raise OptionError(f"-p {key}: use --{key}")
    value = _json(text)
    if not field.quoted and text.startswith("$"):
        value = _value(Word(text, quoted=False, start=0, end=0), f"-p {key}", names)
    if key in KNOBS:
        textual = KNOBS[key].type not in (int, float, bool)
        options.parameters[key] = _converted(
            f"-p {key}", key, text if textual and isinstance(value, (int, float)) else value
        )
    else:
        options.extra[key] = value


def _store_axis(options: Options, axis: Word, names: Mapping[str, Any]) -> None:
    name, equals, text = axis.text.partition("=")
    if not equals:
        raise OptionError(f"--sweep takes NAME=VALUES, not {shorten(axis.text, 40)!r}")
    values = text
    if not axis.quoted and text.startswith("$"):
        values = _value(Word(text, quoted=False, start=0, end=0), "--sweep", names)
    elif name.strip() in ("stop", "suffix"):
        values = unescape(text)
    options.sweep = [*(options.sweep or []), read_axis(name, values)]


def _store_budget(options: Options, budget: Word, names: Mapping[str, Any]) -> None:  # noqa: ARG001  # as its neighbours
    match = re.fullmatch(r"(tokens|requests)=(\d{1,12})", budget.text)
    if match is None:
        raise OptionError(f"--budget takes tokens=N or requests=N, not {shorten(repr(budget.text), 40)}")
    options.budget = {match[1]: int(match[2])}


ONLY_WITH = {
    "concurrency": ("-i", "--sweep", "--score"),
    "pack": ("-i",),
    "executor": ("-i",),
    "max_rps": ("-i", "--score"),
    "budget": ("-i", "--score"),
    "score_by": ("--score",),
    "score_context": ("--score",),
}
ONLY_ONE = ("background", "dry_run", "extract", "sample")


def check_together(options: Options, way: str) -> None:
    """Raise OptionError where an option would do nothing: `way` is `-i`, `--sweep`, `--score`, or empty."""
    for name, ways in ONLY_WITH.items():
        if getattr(options, name) is not None and way not in ways:
            does = f"does not go with {way}" if way == "--score" else "would do nothing"
            raise OptionError(f"{_flag(name)} {does}: it goes with {' or '.join(ways)}")
    if not way:
        return
    for name in (*ONLY_ONE, *(["prompt"] if options.inputs is not None else [])):
        if name == "dry_run" and way == "-i":
            continue  # it shows the request of the first row
        if getattr(options, name) not in (None, False):
            raise OptionError(f"{_flag(name)} is for one completion: it does not go with {way}")
    if options.form not in (None, "completion", "frame"):
        bound = {"-i": "a Batch", "--sweep": "a Sweep", "--score": "Scores"}[way]
        raise OptionError(f"{way} binds {bound}, or with --as frame a frame, not {options.form}")


def _flag(name: str) -> str:
    return next(option.flags[-1] for option in OPTIONS if option.name == name)


PAIRS: dict[str, Callable[[Options, Word, Mapping[str, Any]], None]] = {
    "p": _store_field,
    "sweep": _store_axis,
    "budget": _store_budget,
}


def _json(text: str) -> Any:
    """Return what `text` is as JSON, or `text` itself; NaN and the infinities are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _prompt(text: str) -> Any:
    listed = _json(text)
    return listed if isinstance(listed, list) else text


NUMBERS: dict[str, int | None] = {
    "connect_timeout": None,
    "first_token_timeout": None,
    "timeout": None,
    "max_rps": None,
    "retries": 0,
    "sample": 1,
    "concurrency": 1,
    "pack": 1,
}
"""Options that take a whole number from this one on, or, with None, any above 0."""


def _number(flag: str, value: Any, *, least: int | None) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1
    whole = least is not None
    low = number <= 0 if least is None else number < least
    if low or not number < 1e9 or (whole and number != int(number)):
        unit = "seconds above 0" if flag.endswith("timeout") else "a number above 0"
        wanted = f"a whole number{f' from {least}' if least else ''}" if whole else unit
        raise OptionError(f"{flag} takes {wanted}, not {shorten(repr(value), 40)}")
    return int(number) if whole else number


def unescape(text: str) -> str:
    r"""Return `text` with \n, \t, \r, \\ and \uXXXX read; any other backslash is itself."""
    signs = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    read = ESCAPES.sub(lambda match: signs.get(match[1]) or chr(int(match[1][1:], 16)), text)
    # Two escapes may be the halves of one character.
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def help_rows() -> list[tuple[str, str, str]]:
    """Return (group, option, what it does) of every option, an option and its negation on one row."""
    rows = []
    for option in OPTIONS:
        if not option.sets and option.flags[0] != "--no-raise-error":
            continue
        flags = "/".join(option.flags)
        if "--no-" + option.flags[-1][2:] in BY_FLAG:
            flags += "/--no-" + option.flags[-1][2:]
        rows.append((option.group, f"{flags} {option.value}" if option.value else flags, option.help))
    return rows


def help_text() -> str:
    """Return the table of options as plain text."""
    lines = ["%%complete [options]", "prompt, verbatim; {{ name }} is replaced; {{fill}} marks a hole"]
    group = ""
    for row_group, flags, text in help_rows():
        if row_group != group:
            group = row_group
            lines += ["", group]
        lines.append(f"  {flags:<34} {text}")
    return "\n".join(lines)


def help_markdown() -> str:
    """Return the table of options as Markdown, for the README."""
    rows = [f"| {group} | `{flags}` | {text} |" for group, flags, text in help_rows()]
    return "\n".join(["| group | option | what it does |", "|---|---|---|", *rows])
