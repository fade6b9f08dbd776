"""The canonical `%%complete` line: the shortest that is read as the same options."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .options import OPTIONS, Option, Options
from .schema import KNOBS

BARE = re.compile(r"(?![-$])(?:[\w.,:;/+@%^=!?~*#-]|\\[nrt])+", re.ASCII)
NUMBER = re.compile(r"-?[\d.][\d.e+-]*")
# IPython splits lines where str.splitlines does, at more than line ends; what cannot be seen is spelled too.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ud800-\udfff]")
ESCAPED = ("stop", "suffix")


def write_line(options: Options) -> str:
    """Return the options as one line, without `%%complete`: in the table's order, read back as what they are.

    A variable's value (`$name`) stands there itself. What no option can spell goes by -p.
    """
    return " ".join(word for option in OPTIONS for word in _words(option, options))


def _words(option: Option, options: Options) -> Iterator[str]:
    name = option.name
    flag = min(option.flags, key=len)
    if name == "p":
        yield from (_field(key, value) for key, value in options.extra.items())
    elif name == "budget":
        yield from (f"{flag} {what}={count}" for what, count in (options.budget or {}).items())
    elif name == "sweep":
        axes = {axis.name: ",".join(map(spell, axis.settings)) for axis in options.sweep or []}
        yield from (f"{flag} {quote(f'{axis}={values}')}" for axis, values in axes.items())
    elif name in KNOBS:
        if name in options.parameters:
            yield from _knob(option, flag, options.parameters[name])
    elif option.value is None:
        if getattr(options, name) is option.sets and getattr(Options(), name) is not option.sets:
            yield flag
    elif getattr(options, name) is not None:
        value = getattr(options, name)
        yield f"{flag} {quote(spell(int(value) if isinstance(value, float) and value.is_integer() else value))}"


def _knob(option: Option, flag: str, value: Any) -> Iterator[str]:
    name = option.name
    if isinstance(value, bool):
        if value is option.sets:
            yield flag
    elif name == "stop" and isinstance(value, list) and len(value) > 1:
        yield from (f"{flag} {quote(escape(text))}" for text in value)
    elif isinstance(value, str) and (name in ESCAPED or not UNSEEN.search(value)):
        yield f"{flag} {quote(escape(value) if name in ESCAPED else value)}"
    elif isinstance(value, (str, list)):
        yield _field(name, value)
    else:
        yield f"{flag} {quote(spell(value))}"


def _field(key: str, value: Any) -> str:
    text = value
    if not isinstance(value, str) or UNSEEN.search(value) or _is_json(value):
        text = _json(value)
    return f"-p {quote(f'{key}={text}', bare=not text.startswith('$'))}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def spell(value: Any) -> str:
    """Return a value as the line takes it: text as it is, anything else as JSON, so that 1.0 stays 1.0."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return UNSEEN.sub(lambda sign: json.dumps(sign[0])[1:-1], text)


def escape(text: str) -> str:
    r"""Return `text` as --stop and --suffix take it: \n, \t, \r, \\ and \uXXXX for what cannot be seen."""
    signs = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
    text = re.sub(rf"\\(?=[ntru\\]|$|{UNSEEN.pattern})", r"\\\\", text)
    return UNSEEN.sub(lambda sign: signs.get(sign[0]) or f"\\u{ord(sign[0]):04x}", text)


def quote(text: str, *, bare: bool = True) -> str:
    """Return `text` as one word of the line, in quotes where it needs them."""
    if bare and (BARE.fullmatch(text) or NUMBER.fullmatch(text)):
        return text
    if '"' not in text and not re.search(r'\\[\\"]|\\$', text):
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    return '"' + re.sub(r'\\(?=[\\"]|$)|"', lambda sign: "\\" + sign[0], text) + '"'
