"""The official client on the same cases, as a careful program would use it."""

import threading
from collections import defaultdict
from collections.abc import Iterator

import httpx
import openai

from .fault import KEY, Fault
from .ways import PROMPT, SETTINGS, TEN, Outcome

LIMIT = 10.0
"""Seconds for one case: what has not ended by then is said not to end."""


def by_openai(fault: Fault, base_url: str) -> Outcome:
    """Ask with `openai.OpenAI`, streamed, and add the chunks; retries where only they can give the text."""
    parts: defaultdict[int, str] = defaultdict(str)
    came = Outcome(error=TimeoutError(f"no end within {LIMIT:g} s"))

    def read() -> None:
        settings = {**SETTINGS, **fault.settings}
        timeout = httpx.Timeout(
            settings.get("first_token_timeout") or settings["timeout"],
            connect=settings.get("connect_timeout", 5.0),
            read=min(settings["timeout"], settings.get("first_token_timeout", 99.0)),
        )
        retries = 0 if fault.error else 2
        try:
            with openai.OpenAI(base_url=base_url, api_key=KEY, timeout=timeout, max_retries=retries) as client:
                for chunk in client.completions.create(model="m", prompt=PROMPT, stream=True, **fault.asks):
                    for choice in chunk.choices or ():
                        parts[choice.index if isinstance(choice.index, int) else 0] += choice.text or ""
        except Exception as error:  # noqa: BLE001  # what kind it is counts
            came.error = error
        else:
            came.error = None

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(LIMIT)
    came.texts = tuple(parts[index] for index in sorted(parts))
    return came


def openai_problems(fault: Fault, came: Outcome) -> Iterator[str]:
    """Yield what is wrong: another text, no error or one that is not the client's own, a text lost, the key shown."""
    shown = f"{type(came.error).__name__}: {came.error}"[:100]
    if fault.error is None and came.error is not None:
        yield f"{shown} instead of a text"
    elif came.texts != (fault.texts if fault.error is None else fault.partial):
        yield f"{str(came.texts)[:60]} has come, not {str(fault.texts or fault.partial)[:60]}"
    if fault.error is not None and not isinstance(came.error, openai.OpenAIError):
        yield "no error" if came.error is None else f"{shown} is none of its own errors"
    if any(piece in f"{came.error} {came.error!r} {came.texts}" for piece in TEN):
        yield "a piece of the key is shown"
