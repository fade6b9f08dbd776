"""From a completion to the value that a variable takes."""

from __future__ import annotations

import builtins
import json
import keyword
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from .errors import ConversionError, OptionError, shorten
from .schema import Completion

NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def check_name(name: str, names: Mapping[str, Any], flag: str = "-o") -> str:
    """Return `name` if a variable may be called that; raise OptionError where it would hide something."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise OptionError(f"{flag} takes a variable's name, not {shorten(name, 40)!r}")
    if name.startswith("__"):
        raise OptionError(f"{flag} {name}: names that begin with two underscores are Python's own")
    if name in ("In", "Out"):
        raise OptionError(f"{flag} {name} would hide IPython's own {name}: choose another name")
    if hasattr(builtins, name) and (name not in names or _is_ipythons(names[name])):
        raise OptionError(f"{flag} {name} would hide Python's {name}: choose another name, or assign {name} first")
    if isinstance(names.get(name), ModuleType):
        raise OptionError(f"{flag} {name} would hide the module {name}: choose another name, or del {name} first")
    return name


def _is_ipythons(value: object) -> bool:
    """Say whether IPython itself put `value` among the variables, as it does with `open` and `exit`."""
    home = getattr(value, "__globals__", {}).get("__name__") or type(value).__module__
    return str(home).partition(".")[0] in ("IPython", "ipykernel")


def check_pattern(pattern: str, names: Mapping[str, Any]) -> re.Pattern[str]:
    """Return the compiled `--extract` pattern; raise OptionError unless it has named groups that may be bound."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(f"--extract: {error}") from None
    if not compiled.groupindex:
        raise OptionError("--extract needs a named group, such as (?P<year>\\d+)")
    for name in compiled.groupindex:
        check_name(name, names, "--extract")
    return compiled


def extract(completion: Completion, pattern: re.Pattern[str]) -> dict[str, str | None]:
    """Return what the named groups of `pattern` match in the first choice; raise ConversionError without a match."""
    match = pattern.search(completion.text)
    if match is None:
        raise ConversionError(
            f"--extract {shorten(pattern.pattern, 60)!r} matches nothing in {shorten(completion.text, 60)!r}",
            partial=completion,
        )
    return match.groupdict()


def convert(completion: Completion, form: str) -> Any:
    """Return the completion in one of the FORMS; raise ConversionError where its text is none."""
    try:
        return FORMS[form](completion)
    except ValueError as error:
        message = f"--as {form}: {error} in {shorten(completion.text, 60)!r}; the completion itself is bound"
        raise ConversionError(message, partial=completion) from None


def _lines(completion: Completion) -> list[str]:
    return [line for line in completion.text.splitlines() if line.strip()]


def _json(completion: Completion) -> Any:
    text = completion.text.strip()
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("there is JSON nested too deep") from None
    except ValueError:
        pass
    # Models like to put a sentence, or a fence of backquotes, around the value.
    decoder = json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"[\[{]", text)):
        try:
            return decoder.raw_decode(text, start)[0]
        except json.JSONDecodeError as error:
            # Nothing closes after the place where it breaks: its end is missing, and a part would be a lie.
            if not re.search(r"[\]}]", text[error.pos :]) or error.msg.startswith("Unterminated"):
                raise ValueError("there is JSON that was cut off") from None
        except RecursionError:
            raise ValueError("there is JSON nested too deep") from None
    raise ValueError("there is no JSON")


def _number(completion: Completion) -> int | float:
    match = NUMBER.search(completion.text)
    if match is None:
        raise ValueError("there is no number")
    digits = match[0].replace(",", "")
    return float(digits) if re.search(r"[.eE]", digits) and not digits.endswith(".") else int(digits.rstrip("."))


FORMS: dict[str, Callable[[Completion], Any]] = {
    "completion": lambda completion: completion,
    "text": lambda completion: completion.text,
    "texts": lambda completion: completion.texts,
    "lines": _lines,
    "json": _json,
    "number": _number,
    "frame": Completion.to_frame,
}
