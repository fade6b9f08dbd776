"""Where faults happen: a scripted server, servers behind bad certificates, ports that do not answer."""

import contextlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from conftest import HELLO, PlainServer, ScriptedServer, TlsServer, port_that_is_closed, port_that_is_full

from completions_magic.endpoint import _tls

from .fault import Fault

LAST_YEAR = datetime.now(UTC) - timedelta(days=365)
KEY_VARIABLE = "FAULTS_KEY"


class FaultServer(ScriptedServer):
    """A scripted server that gives every asking an address of its own, and so knows what to answer."""

    def __init__(self):
        self._numbers = itertools.count(1)
        self._faults: dict[str, Fault] = {}
        self._asked: Counter[tuple[str, bytes]] = Counter()
        self._counting = threading.Lock()
        super().__init__([HELLO])

    def address(self, fault: Fault) -> str:
        """Return a new base URL at which `fault` happens."""
        number = str(next(self._numbers))
        self._faults[number] = fault
        return f"{self.origin}/{number}/v1"

    def heard_at(self, base_url: str) -> int:
        """Return how many completions this base URL was asked for; a look at its models is none."""
        route = base_url.removeprefix(self.origin) + "/"
        return sum(heard.path.startswith(route) for heard in self.heard if heard.method == "POST")

    def script(self, heard):
        """Return the next script of the fault at the request's address; equal bodies are one question."""
        number = heard.path.split("/")[1]
        with self._counting:
            self._asked[number, heard.body] += 1
            scripts = self._faults[number].scripts
            return scripts[min(self._asked[number, heard.body], len(scripts)) - 1]


class Grounds:
    """All addresses at which faults happen."""

    def __init__(self, server: FaultServer, addresses: dict[str, str]):
        self.server = server
        self._addresses = addresses

    def base_url(self, fault: Fault) -> str:
        """Return where to ask for `fault`."""
        return self.server.address(fault) if fault.address == "server" else self._addresses[fault.address]


@contextlib.contextmanager
def open_grounds(folder: Path) -> Iterator[Grounds]:
    """Open all servers and ports; the authority of the certificates is trusted meanwhile, as a user would set it."""
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificates = {
        "TLS, other host": authority.issue_cert("other.example"),
        "TLS, expired": authority.issue_cert(
            "127.0.0.1", not_before=LAST_YEAR, not_after=LAST_YEAR + timedelta(days=9)
        ),
        "TLS, unknown authority": stranger.issue_cert("127.0.0.1"),
        "TLS": authority.issue_cert("127.0.0.1"),
    }
    with contextlib.ExitStack() as opened, variables(SSL_CERT_FILE=str(folder / "authority.pem")):
        _tls.cache_clear()
        opened.callback(_tls.cache_clear)
        addresses = {
            "closed port": f"http://127.0.0.1:{opened.enter_context(port_that_is_closed())}/v1",
            "black hole": f"http://127.0.0.1:{opened.enter_context(port_that_is_full())}/v1",
        }
        chains = {name: leaf.private_key_and_cert_chain_pem.bytes() for name, leaf in certificates.items()}
        chains["TLS, self-signed"] = stranger.private_key_pem.bytes() + stranger.cert_pem.bytes()
        for name, chain in chains.items():
            pem = folder / f"{name}.pem"
            pem.write_bytes(chain)
            addresses[name] = opened.enter_context(contextlib.closing(TlsServer(pem, [HELLO]))).base_url
        server = opened.enter_context(contextlib.closing(FaultServer()))
        plain = opened.enter_context(contextlib.closing(PlainServer()))
        addresses["TLS to plain http"] = plain.base_url.replace("http", "https")
        addresses["plain http to TLS"] = addresses["TLS"].replace("https", "http")
        yield Grounds(server, addresses)


@contextlib.contextmanager
def variables(**values: str) -> Iterator[None]:
    """Set environment variables within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
