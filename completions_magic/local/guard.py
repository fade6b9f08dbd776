"""What stands between the network and the embedded endpoint: who may ask, and in what form."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..key import ApiKey
from .app import Refusal, StartResponse, send_json

HOSTS = {"localhost", "127.0.0.1", "[::1]"}

Wsgi = Callable[[Mapping[str, Any], StartResponse], Iterable[bytes]]


class Guard:
    """Passes a request on to `app` only from a program on this machine, and with the key where one is set.

    Host must name this machine, or be one of `hosts`, against rebinding; a web page's Origin is refused, against
    cross-site requests; a body must be JSON. With `any_address` Host may be an address by its numbers, which cannot
    be rebound. Refusals have the API's error shape.
    """

    def __init__(
        self, app: Wsgi, *, key: ApiKey | None = None, hosts: Iterable[str] = (), any_address: bool = False
    ) -> None:
        self._app = app
        self._key = key
        self._hosts = HOSTS | set(hosts)
        self._any_address = any_address

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or refuse it."""
        try:
            self._check(environ)
        except Refusal as refusal:
            answer: Iterable[bytes] = send_json(start_response, refusal.status, refusal.body())
        else:
            answer = self._app(environ, start_response)
        # Who asks for a head alone would read a body as the next answer.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else answer

    def _check(self, environ: Mapping[str, Any]) -> None:
        if not self._is_ours(environ.get("HTTP_HOST", "")):
            raise Refusal(403, "this endpoint answers to localhost only: the Host header names another machine")
        if "HTTP_ORIGIN" in environ:
            raise Refusal(403, "this endpoint does not answer web pages")
        if environ["REQUEST_METHOD"] == "POST":
            kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refusal(415, "the body must be application/json")
        if self._key is not None:
            said = environ.get("HTTP_AUTHORIZATION", "")
            if not hmac.compare_digest(said.encode(), f"Bearer {self._key.reveal()}".encode()):
                raise Refusal(401, "the key is missing or wrong: Authorization: Bearer …", code="invalid_api_key")

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.lower().rpartition(":")
        names = {host.lower(), name if port.isdecimal() else ""}
        return bool(names & self._hosts) or (self._any_address and any(map(_is_address, names)))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
