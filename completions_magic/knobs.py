"""The knobs of a tuning panel: what each looks like, and what a setting of them all says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_origin

import msgspec

from .errors import OptionError
from .line import escape, spell, write_line
from .options import Options, unescape
from .prompt import PATH
from .schema import KNOBS, Knob, check_prompt

REACH = {"max_tokens": 256, "n": 16}
"""How far a slider goes where the API's own bound is farther than people mean, or there is none: the field goes on."""
FARTHEST = 20
MOST_BOUND = 1000
STEPS = 40
RARE = ("stream", "logit_bias", "user", "stream_options")
"""What few people turn: in the panel it stands behind a heading that opens."""
ESCAPED = ("stop", "suffix")


class Setting(msgspec.Struct, frozen=True):
    """A state of the panel: the texts of the knobs that are set, the prompt as a template, model and profile.

    An empty model or profile is the one that holds where none is named.
    """

    knobs: dict[str, str]
    prompt: str
    model: str = ""
    profile: str = ""


@dataclass(frozen=True)
class Original:
    """The cell that a panel was opened from: its options and its body; settings are read against it."""

    options: Options
    body: str

    @classmethod
    def of(cls, options: Options, body: str) -> Original:
        """Return the cell without `--tune`; a text that `--prompt` gave becomes its body, where it can be edited."""
        options = replace(options, tune=False)
        given = options.prompt
        if given is None or body.strip():
            return cls(options, body)
        if isinstance(given, str) and given.strip():
            return cls(replace(options, prompt=None, raw=options.raw or PATH.search(given) is not None), given)
        # IPython runs no cell magic without a line below it.
        return cls(replace(options, prompt=check_prompt(given)), body or "\n")

    @property
    def setting(self) -> Setting:
        """The setting that is this cell."""
        options = self.options
        knobs = {name: shown(name, value) for name, value in options.parameters.items()}
        return Setting(knobs, self.body, options.model or "", options.profile or "")

    def options_for(self, setting: Setting) -> Options:
        """Return the cell's options with what the panel sets; raise OptionError for the first knob that is off."""
        parameters = {name: self.value(name, setting.knobs[name]) for name in KNOBS if name in setting.knobs}
        options = replace(
            self.options, parameters=parameters, model=setting.model or None, profile=setting.profile or None
        )
        if options.profile != self.options.profile:
            # Another profile is another address: what the line said of the first one's does not hold for it.
            return replace(options, base_url=None, api_key_env=None, api_key_from=None, allow_http=False)
        return options

    def value(self, name: str, text: str) -> Any:
        """Return what a knob's text says; raise OptionError where it says nothing that the API takes."""
        before = self.options.parameters
        if name in before and shown(name, before[name]) == text:
            return before[name]
        try:
            return KNOBS[name].convert(_read(name, text))
        except ValueError as error:
            raise OptionError(f"{name} {error}") from None

    def problems(self, setting: Setting) -> dict[str, str]:
        """Return what is wrong with each knob that is off, in words."""
        found = {}
        for name, text in setting.knobs.items():
            try:
                self.value(name, text)
            except OptionError as error:
                found[name] = str(error)
        return found

    def line_for(self, setting: Setting) -> str:
        """Return the first line of the cell that asks what the panel asks."""
        return f"%%complete {write_line(self.options_for(setting))}".rstrip(" ")

    def cell_for(self, setting: Setting) -> str:
        """Return the whole cell that asks what the panel asks."""
        return f"{self.line_for(setting)}\n{setting.prompt}"


def shown(name: str, value: Any) -> str:
    """Return a parameter's value as the panel shows it: escapes as people write them, a stop sequence a line."""
    if name == "stop":
        return "\n".join(escape(text) for text in ([value] if isinstance(value, str) else value))
    return escape(value) if name in ESCAPED else spell(value)


def _read(name: str, text: str) -> object:
    if name == "stop":
        texts = [unescape(line) for line in text.split("\n") if line]
        return texts[0] if len(texts) == 1 else texts
    return unescape(text) if name in ESCAPED else text


def faces() -> list[dict[str, Any]]:
    """Return how every knob looks: name, help, kind, slider (low, high, step), default, and whether it is rare."""
    return [
        {
            "name": knob.name,
            "help": knob.description + (f" ({knob.range})" if knob.range else ""),
            "kind": _kind(knob),
            "slider": _slider(knob),
            "default": "none" if knob.default is None else json.dumps(knob.default),
            "rare": knob.name in RARE,
        }
        for knob in KNOBS.values()
    ]


def _kind(knob: Knob) -> str:
    if knob.type is int and knob.high is not None and knob.high > MOST_BOUND:
        return "random"
    if get_origin(knob.type) is dict:
        return "json"
    return {int: "integer", float: "number", bool: "flag", str: "text"}.get(knob.type, "texts")


def _slider(knob: Knob) -> list[float] | None:
    """Return where a number's slider begins and ends and its step; None for what has no slider."""
    if _kind(knob) not in ("integer", "number") or knob.low is None:
        return None
    high = REACH.get(knob.name, FARTHEST if knob.high is None else knob.high)
    return [knob.low, high, 1 if knob.type is int else (high - knob.low) / STEPS]


def table(options: Options) -> Mapping[str, str]:
    """Return what some options set of the request, by name, as texts: endpoint, model, parameters, other fields."""
    named = {"profile": options.profile, "model": options.model}
    texts = {name: value for name, value in named.items() if value}
    return {
        **texts,
        **{name: shown(name, value) for name, value in options.parameters.items()},
        **{name: spell(value) for name, value in options.extra.items()},
    }
