"""Ports for programs that bind them a while after they were chosen."""

import contextlib
import itertools
import os
import socket

_places = itertools.cycle(range(200))


def port_to_bind_later(ip: str = "127.0.0.1") -> int:
    """Return a port that nobody has bound, below those that the system gives to whoever asks for any.

    Of those another test's server may get it meanwhile. Each process of tests has some of its own.
    """
    for place in _places:
        port = 10_000 + 200 * (os.getpid() % 100) + place
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ip, port))
            return port
    raise AssertionError
