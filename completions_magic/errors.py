"""One tree of failures.

CompletionsError
├── ConfigurationError          kind "config"
│   ├── OptionError             the line could not be read
│   ├── PromptError             the prompt could not be rendered, or must not be sent
│   ├── ProfileError            no such endpoint, no key, a key that may not go there
│   ├── ConversionError         the answer is not what --as or --extract asked for
│   ├── ScoringError            the answer does not say how likely its prompt is, which --score asks for
│   ├── CassetteError           the cassette has no such interaction, or cannot be read or written
│   └── BudgetError             the budget of a batch is spent
├── APIConnectionError          kind "connect" or "tls"
│   ├── APITimeoutError         kind "timeout"
│   └── RedirectError           kind "redirect"
├── APIStatusError              kind "status"
│   ├── BadRequestError         kind "bad_request"   400, 413, 422
│   ├── AuthenticationError     kind "auth"          401
│   ├── PermissionDeniedError   kind "permission"    402, 403
│   ├── NotFoundError           kind "not_found"     404
│   ├── RateLimitError          kind "rate_limit"    429
│   └── ServerError             kind "server"        408, 409, 5xx
├── StreamError                 kind "protocol"      cut or broken transfer
│   ├── DecodeError             kind "decode"        not what the API promises
│   ├── TooLargeError           kind "too_large"
│   └── AnswerError             kind "api"           an error inside a 200
└── WorkerError                 kind "worker"        an executor has lost the worker that asked

Interrupted (a KeyboardInterrupt)                    kind "interrupted"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from .inert import one_line

if TYPE_CHECKING:
    from .batch import Batch
    from .schema import Completion

MESSAGE_LIMIT = 2000


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` on at most `limit` characters, the end replaced by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return ` (did you mean …?)` with the closest of the `known` words, or an empty text."""
    import difflib  # here, since few who load this use it

    return did_you_mean(difflib.get_close_matches(word, list(known), n=3, cutoff=likeness))


def did_you_mean(words: Sequence[str]) -> str:
    """Return ` (did you mean …?)` with these words, or an empty text where there are none."""
    return f" (did you mean {' or '.join(words)}?)" if words else ""


class CompletionsError(Exception):
    """A failure with what is known of it; in a notebook it shows as one line.

    `partial` is the Completion received so far, or None; `status` the HTTP status, or None; `request_id`
    the server's name for the request, or None; `endpoint` the profile's name or base URL, or None; `kind`
    one of: config, connect, tls, timeout, redirect, protocol, decode, too_large, api, bad_request, auth,
    permission, not_found, rate_limit, server, status, worker, cassette.
    """

    default_kind: ClassVar[str] = "config"

    def __init__(
        self,
        message: str,
        *,
        kind: str | None = None,
        endpoint: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        partial: Completion | None = None,
    ) -> None:
        super().__init__(one_line(message, MESSAGE_LIMIT))
        self.kind = kind or self.default_kind
        self.endpoint = endpoint
        self.status = status
        self.request_id = request_id
        self.partial = partial

    @property
    def message(self) -> str:
        """The one line that a person reads: inert, and of at most 2,000 characters."""
        return str(self.args[0])

    @message.setter
    def message(self, message: str) -> None:
        self.args = (one_line(message, MESSAGE_LIMIT),)

    @property
    def headline(self) -> str:
        """The kind of the failure and its one line."""
        return f"{type(self).__name__}: {self.message}"

    def _render_traceback_(self) -> list[str]:
        # IPython's own hook: the frames would bury the one line that helps.
        return [self.headline]


class ConfigurationError(CompletionsError):
    """Something on this side is not right; nothing was sent."""


class OptionError(ConfigurationError):
    """The options of the line could not be read."""


class PromptError(ConfigurationError):
    """The prompt could not be rendered, or must not be sent."""


class ProfileError(ConfigurationError):
    """The endpoint is not known, or its key is missing or may not be sent there."""


class ConversionError(ConfigurationError):
    """The answer is not what `--as` or `--extract` asked for; `.partial` holds it."""


class ScoringError(ConfigurationError):
    """The answer does not say how likely its prompt is, which `--score` asks for."""


class CassetteError(ConfigurationError):
    """The cassette has no such interaction, or cannot be read or written."""


class BudgetError(ConfigurationError):
    """The budget of a batch is spent; nothing was sent."""


class APIConnectionError(CompletionsError):
    """The endpoint could not be reached."""

    default_kind = "connect"


class APITimeoutError(APIConnectionError):
    """The endpoint was silent for longer than the timeout."""

    default_kind = "timeout"


class RedirectError(APIConnectionError):
    """The endpoint answered with a redirect, which is never followed: neither key nor prompt goes there."""

    default_kind = "redirect"


class APIStatusError(CompletionsError):
    """The endpoint answered with a status that is not a success.

    `retry_after` is the wait that it asks for, in seconds, and `should_retry` whether it wants to be asked again;
    None where it does not say.
    """

    default_kind = "status"
    retry_after: float | None = None
    should_retry: bool | None = None


class BadRequestError(APIStatusError):
    """The endpoint refused a parameter."""

    default_kind = "bad_request"


class AuthenticationError(APIStatusError):
    """The endpoint did not accept the key."""

    default_kind = "auth"


class PermissionDeniedError(APIStatusError):
    """The key may not do this, or the account has no credit."""

    default_kind = "permission"


class NotFoundError(APIStatusError):
    """The endpoint has no such model, or no completions at this address."""

    default_kind = "not_found"


class RateLimitError(APIStatusError):
    """Too many requests."""

    default_kind = "rate_limit"


class ServerError(APIStatusError):
    """The endpoint failed."""

    default_kind = "server"


class StreamError(CompletionsError):
    """The answer ended before the server had said that it was complete."""

    default_kind = "protocol"


class DecodeError(StreamError):
    """The answer is not what the completions API promises."""

    default_kind = "decode"


class TooLargeError(StreamError):
    """One event, or the whole answer, is larger than the limit."""

    default_kind = "too_large"


class AnswerError(StreamError):
    """The answer began as a success and holds an error."""

    default_kind = "api"


class WorkerError(CompletionsError):
    """An executor has lost the worker that was to ask, again and again, or is of no use any more."""

    default_kind = "worker"


class Interrupted(KeyboardInterrupt):
    """The person interrupted; `partial` is the Completion received so far, or None, and `batch` the rows of many."""

    kind = "interrupted"

    def __init__(self, partial: Completion | None = None) -> None:
        super().__init__("interrupted")
        self.partial = partial
        self.batch: Batch | None = None

    def _render_traceback_(self) -> list[str]:
        kept = self.batch is not None or (self.partial is not None and bool(self.partial.text))
        return ["Interrupted" + (": what had arrived is kept" if kept else "")]


def status_error(status: int) -> type[APIStatusError]:
    """Return the exception class of an HTTP `status`."""
    by_status: dict[int, type[APIStatusError]] = {
        400: BadRequestError,
        401: AuthenticationError,
        402: PermissionDeniedError,
        403: PermissionDeniedError,
        404: NotFoundError,
        408: ServerError,
        409: ServerError,
        413: BadRequestError,
        422: BadRequestError,
        429: RateLimitError,
    }
    return by_status.get(status, ServerError if status >= 500 else APIStatusError)
