"""One endpoint over HTTP: its connection, its key, and its failures in our words."""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
import threading
from collections.abc import Iterator
from functools import cache
from typing import ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet, WeakValueDictionary

import httpx

from .answer import describe_error
from .cassette import Cassette
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    CompletionsError,
    DecodeError,
    NotFoundError,
    ProfileError,
    PromptError,
    RedirectError,
    StreamError,
    shorten,
    status_error,
)
from .key import ApiKey
from .pace import Pace, Paced, asked_wait
from .profiles import LOCAL, Profile, check_in_the_clear, is_loopback
from .tape import asked
from .transport import PlainHttpError, ProxiedTransport, Watch, WatchedTransport
from .version import __version__

ERROR_BODY_LIMIT = 64 * 2**10
ERROR_BODY_SECONDS = 5.0
ENCODINGS = ("identity", "gzip", "deflate")
USER_AGENT = f"completions-magic/{__version__}"
SHOULD_RETRY = {"true": True, "false": False}


class Endpoint:
    """Sends requests to a profile's base URL over one pooled connection, which opens at the first of them.

    `connect_timeout`, `first_token_timeout` and `timeout` are seconds. Raises ProfileError when the key is
    missing or would travel in the clear. All its errors name the endpoint, and none holds the key.
    """

    def __init__(
        self,
        profile: Profile,
        key: ApiKey | None,
        *,
        connect_timeout: float,
        first_token_timeout: float,
        timeout: float,
        transport: httpx.BaseTransport | None,
        cassette: Cassette | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.profile = profile
        self.name = profile.name
        self.key = key
        self._missing: ProfileError | None = None
        replays = cassette is not None and cassette.record == "none"
        if key is None and not (replays and profile.api_key_from):  # nobody is asked for what is not sent
            try:
                self.key = profile.key()
            except ProfileError as error:
                if cassette is None:
                    raise
                self._missing = error  # who only replays needs none
        self.connect_timeout = connect_timeout
        self.first_token_timeout = first_token_timeout
        self.timeout = timeout
        if self.key is not None:
            check_in_the_clear(profile)
            _KeyFilter.keys[id(self.key)] = self.key
            _guard_logs()
        self.transport = transport
        self._cassette = cassette
        self.pace = pace
        self.proxy: httpx.URL | None = None
        self._connection: httpx.BaseTransport | None = None
        self._watches: WeakSet[Watch] = WeakSet()  # of answers that are being read: each ends with its request
        self._lock = threading.Lock()
        self._urls: dict[str, httpx.URL] = {}
        self._timeouts = httpx.Timeout(max(timeout, first_token_timeout), connect=connect_timeout).as_dict()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """Let go of the connections after an interrupt, which may have left one taken; other answers go on."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None and not self._watches:
            connection.close()

    def describe_post(self) -> str:
        """Return the request line and the headers of a completion, without the key."""
        key = "\nAuthorization: Bearer [key]" if self.key is not None else ""
        return f"POST {self._url('/completions')}\nContent-Type: application/json{key}"

    def _connected(self) -> httpx.BaseTransport:
        with self._lock:
            if self._connection is None:
                try:
                    self._connection = self._paced() if self._cassette is None else self._cassette.around(self._paced)
                except (OSError, ValueError, RuntimeError, httpx.InvalidURL) as error:
                    # A certificate file that is not there, a proxy variable that is no address.
                    raise ProfileError(f"the connection to {self.name} cannot be set up: {error}") from error
            return self._connection

    def _paced(self) -> httpx.BaseTransport:
        """Return what really asks, at its pace."""
        return self._live() if self.pace is None else Paced(self._live(), self.pace)

    def _live(self) -> httpx.BaseTransport:
        """Return what really asks, at any pace."""
        if self._missing is not None:
            raise self._missing
        base_url = self.profile.base_url
        if self.transport is not None:
            return self.transport
        if base_url == LOCAL:
            return _embedded()
        context = _tls() if base_url.startswith("https:") else _no_tls()
        named = _proxy(base_url)
        if named is None:
            return WatchedTransport(context)
        proxy = httpx.Proxy(named)
        self.proxy = proxy.url.copy_with(userinfo=None, path="/")
        if proxy.url.scheme == "https":
            return httpx.HTTPTransport(verify=context, proxy=proxy)  # TLS within TLS is httpx's own
        return ProxiedTransport(context, proxy)

    def _url(self, route: str) -> httpx.URL:
        if route not in self._urls:
            # The host of the in-process endpoint is never looked up.
            base = "http://localhost/v1" if self.profile.base_url == LOCAL else self.profile.base_url
            self._urls[route] = httpx.URL(base + route)
        return self._urls[route]

    def open(
        self, method: str, route: str, watch: Watch, body: bytes | None = None, *, sample: int | None = None
    ) -> httpx.Response:
        """Send one request; return the response of a success, unread, or raise what went wrong.

        `sample` is which of a cassette's recordings of this request is wanted.
        """
        response = self.send(method, route, watch, body, sample=sample)
        if response.is_success:
            return response
        try:
            with watch:
                watch.allow(ERROR_BODY_SECONDS)
                raise self._refusal(response)
        finally:
            response.close()

    def asks(self, body: bytes, sample: int) -> bool:
        """Say whether a completion would be asked of the endpoint, rather than replayed or refused by the cassette."""
        path = self._url("/completions").raw_path.decode("ascii")
        return self._cassette is None or self._cassette.asks(asked("POST", path, body), sample)

    def send(
        self, method: str, route: str, watch: Watch, body: bytes | None = None, *, sample: int | None = None
    ) -> httpx.Response:
        """Send one request; return the response of any status but a redirect, unread."""
        request = self.build(method, route, body, sample)
        if body is None:
            timeouts = request.extensions["timeout"]
            request.extensions["timeout"] = {name: min(seconds, watch.limit) for name, seconds in timeouts.items()}
        self._watches.add(watch)
        with translated(self, watch), watch:
            response = self._connected().handle_request(request)
        # Before anything is made of its target, which may be no address.
        if response.has_redirect_location:
            response.close()
            raise self._redirect(response)
        return response

    def build(self, method: str, route: str, body: bytes | None, sample: int | None = None) -> httpx.Request:
        """Return the request with its headers, the key among them."""
        # Straight to the transport: what httpx.Client does around it, cookies, redirects and proxies of its own, is not
        # wanted here, and takes as long as all the rest.
        url = self._url(route)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        }
        if body is not None:
            headers |= {
                "Content-Type": "application/json",
                "Accept": "text/event-stream, application/json",
                "Content-Length": str(len(body)),
            }
        extensions = {"timeout": self._timeouts} if sample is None else {"timeout": self._timeouts, "sample": sample}
        request = httpx.Request(
            method, url, headers=headers, stream=httpx.ByteStream(body or b""), extensions=extensions
        )
        if self.key is not None:
            request.headers["Authorization"] = f"Bearer {self.key.reveal()}"
        return request

    def pieces(self, response: httpx.Response, watch: Watch) -> Iterator[bytes]:
        """Yield the body of `response` as it comes; raise where it is cut or nothing comes while `watch` waits."""
        coming = self._decoded(response)
        while True:
            try:
                with watch:
                    piece = next(coming, None)
            except httpx.HTTPError:
                with translated(self, watch, streaming=True):
                    raise
            if piece is None:
                return
            yield piece
            if not watch.left:
                raise APITimeoutError(silence(self, watch))

    def _decoded(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body as it comes, decompressed where it is compressed; the response is closed after it."""
        stream = response.stream
        if "content-encoding" in response.headers or not isinstance(stream, httpx.SyncByteStream):
            yield from response.iter_bytes()
            return
        # Without the four layers that httpx has for what else may be asked of a response.
        yield from stream
        response.close()

    def explain(self, error: CompletionsError, response: httpx.Response) -> None:
        """Put into the error of an answer what its head says of it."""
        error.request_id = error.request_id or request_id_of(response)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if isinstance(error, DecodeError) and encoding not in ENCODINGS:
            error.message = f"{self.name} sent its answer as {shorten(encoding, 40)}, which nobody has asked for"
        elif self.name not in error.message:
            error.message = f"{self.name}: {error.message}"

    def cleaned(self, error: CompletionsError) -> CompletionsError:
        """Return the error to raise in its place: named, scrubbed, and without the frames that know the request."""
        error.endpoint = error.endpoint or self.name
        if self.key is not None:
            self.key.clean(error)
            error.request_id = error.request_id and self.key.scrub(error.request_id)
        link: BaseException | None = error
        while link is not None:
            link.__traceback__ = None
            if link.__suppress_context__ and link.__cause__ is None:
                link.__context__ = None
            link = link.__cause__ or link.__context__
        return error

    def _refusal(self, response: httpx.Response) -> CompletionsError:
        status = response.status_code
        request_id = request_id_of(response)
        if 300 <= status < 400:
            return self._redirect(response)
        said = describe_error(_read_some(response), response.headers.get("content-type", ""))
        message = f"{self.name} answered {status} {response.reason_phrase}".rstrip()
        error = status_error(status)(f"{message}{': ' if said else ''}{said}", status=status, request_id=request_id)
        error.retry_after = asked_wait(response.headers)
        error.should_retry = SHOULD_RETRY.get(response.headers.get("x-should-retry", "").strip().lower())
        error.message += self._next_step(error)
        return error

    def _redirect(self, response: httpx.Response) -> RedirectError:
        target = response.headers.get("location")
        said = f"{response.status_code} {response.reason_phrase}".rstrip()
        message = f"{self.name} answered {said}, a redirect that does not say where to"
        if target:
            message = f"{self.name} redirects to {shorten(target, 200)}: if that is right, make it the base URL"
        return RedirectError(message, status=response.status_code, request_id=request_id_of(response))

    def _next_step(self, error: APIStatusError) -> str:
        if isinstance(error, AuthenticationError):
            place = self.profile.place
            if self.key is None:
                return " (it wants a key: --api-key-env or --api-key-from names its place)"
            if place is None:
                return " (check the key)"
            again = place.forget(self.name, self.profile.origin)
            return " (the key that you typed is forgotten: run it again)" if again else f" (check the key in {place})"
        if isinstance(error, NotFoundError):
            usual = self.profile.base_url == LOCAL or self.profile.base_url.endswith("/v1")
            path = "" if usual else "; a base URL usually ends in /v1"
            return f" (%completions models lists what it has{path})"
        asked = error.retry_after or 0.0
        return f" (it asks to wait {f'{asked:,.0f} s' if math.isfinite(asked) else 'for ever'})" if asked >= 1 else ""

    def check(self, body: bytes) -> None:
        """Raise PromptError when a text in `body` holds the key itself."""
        if self.key is not None and self.key.is_in(body):
            raise PromptError("the prompt or a parameter holds the key itself: nothing was sent")


@contextlib.contextmanager
def translated(endpoint: Endpoint, watch: Watch, *, streaming: bool = False) -> Iterator[None]:
    """Turn the transport's exceptions into ours."""
    name = endpoint.name
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise APITimeoutError(
            f"no connection to {name} within {endpoint.connect_timeout:g} s{_where(endpoint)} (--connect-timeout)"
        ) from error
    except httpx.TimeoutException as error:
        raise APITimeoutError(silence(endpoint, watch)) from error
    except httpx.ConnectError as error:
        if _has_cause(error, ssl.SSLError):
            raise APIConnectionError(_without_tls(endpoint, error), kind="tls") from error
        message = f"{name} cannot be reached{_where(endpoint)}: is it running, and is the address right? ({error})"
        raise APIConnectionError(message) from error
    except httpx.DecodingError as error:
        raise DecodeError(f"{name} sent a body that does not decompress") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise ProfileError(f"{name}: {error}") from error
    except httpx.ProxyError as error:
        raise APIConnectionError(f"{name} cannot be reached{_where(endpoint)}, which refuses: {error}") from error
    except httpx.TransportError as error:
        if streaming:
            raise StreamError(f"{name} cut the answer off ({shorten(str(error), 200)})") from error
        raise APIConnectionError(f"{name} closed the connection without an answer ({error})") from error


def _without_tls(endpoint: Endpoint, error: httpx.ConnectError) -> str:
    base_url = endpoint.profile.base_url
    if _has_cause(error, PlainHttpError):
        return f"{endpoint.name} speaks plain http{_where(endpoint)}: try {base_url.replace('https', 'http', 1)}"
    is_tls = _has_cause(error, ssl.SSLCertVerificationError)
    what = "could not be verified" if is_tls else "has not agreed on TLS, as if it were no https"
    return f"{endpoint.name} {what}: {shorten(str(error), 200)}"


def silence(endpoint: Endpoint, watch: Watch) -> str:
    """Return in words how long nothing has come, and which option allows more."""
    if watch.first is not None:
        option = "--timeout, or --first-token-timeout" if watch.first == watch.limit else "--first-token-timeout"
        return f"{endpoint.name} sent no first token within {watch.first:g} s ({option})"
    return f"{endpoint.name} sent no event for {watch.limit:g} s (--timeout)"


def request_id_of(response: httpx.Response) -> str | None:
    """Return the server's name for the request, if it gave one."""
    named: str | None = response.headers.get("x-request-id") or response.headers.get("request-id")
    return named


def _where(endpoint: Endpoint) -> str:
    address = "" if endpoint.name == endpoint.profile.base_url else f" at {endpoint.profile.base_url}"
    return address if endpoint.proxy is None else f"{address} through the proxy {str(endpoint.proxy).rstrip('/')}"


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _read_some(response: httpx.Response) -> bytes:
    """Return the start of an error's body; whatever goes wrong while reading it, the status is what counts."""
    body = bytearray()
    with contextlib.suppress(httpx.HTTPError):
        for piece in response.iter_bytes():
            body += piece
            if len(body) >= ERROR_BODY_LIMIT:
                break
    return bytes(body[:ERROR_BODY_LIMIT])


@cache
def _tls() -> ssl.SSLContext:
    """Return the one context of the process: reading the certificates takes 20 ms each time."""
    return httpx.create_ssl_context()


@cache
def _no_tls() -> ssl.SSLContext:
    # A context without certificates trusts nobody: right for plain http, where none is used, and free.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _proxy(base_url: str) -> str | None:
    """Return the proxy that the environment's variables name for `base_url`: never for this machine itself."""
    parts = urlsplit(base_url)
    if is_loopback(base_url) or proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    return named if named is None or "://" in named else f"http://{named}"


class _KeyFilter(logging.Filter):
    """Scrubs what the HTTP library logs at DEBUG: servers' heads, and errors that quote them."""

    # Of two that are equal a set would know the first, and nothing once that is gone.
    keys: ClassVar[WeakValueDictionary[int, ApiKey]] = WeakValueDictionary()

    def filter(self, record: logging.LogRecord) -> bool:
        if self.keys:
            message = record.getMessage()
            for known in self.keys.valuerefs():  # a list, whoever makes a client meanwhile
                key = known()
                message = message if key is None else key.scrub(message)
            record.msg, record.args = message, ()
        return True


@cache
def _guard_logs() -> None:
    for name in ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))):
        logging.getLogger(name).addFilter(_KeyFilter())


def _embedded() -> httpx.BaseTransport:
    from .local.app import App

    return httpx.WSGITransport(App())
