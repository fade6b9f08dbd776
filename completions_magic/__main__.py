"""The command line: `completions-magic serve`, `doctor`, `verify` and `demo`."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence

LAST_PORT = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"completions-magic: {error}", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        # What it was is not repeated: it may be a key.
        is_option = any(word.startswith("-") for word in unknown)
        said = "there is no such option" if is_option else "that is one argument too many"
        print(f"completions-magic: {said}; keys are named with --api-key-env", file=sys.stderr)
        return 2
    from .errors import CompletionsError

    try:
        if options.command == "demo":
            from .demo import run

            return run()
        if options.command == "verify":
            from .verify import run as verify

            return verify(options.notebooks, live=options.live)
        return _examine(options) if options.command == "doctor" else _serve(options)
    except CompletionsError as error:
        print(f"completions-magic: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="completions-magic", description="Text completions in notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve", help="serve the embedded endpoint over HTTP, on this machine", allow_abbrev=False
    )
    serve.add_argument("--port", type=int, default=0, help="0 takes a free one")
    serve.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; one that others reach takes --allow-network"
    )
    serve.add_argument("--allow-network", action="store_true", help="let other machines ask, on the address of --host")
    serve.add_argument("--api-key-env", metavar="VAR", help="ask callers for the key in this environment variable")
    serve.add_argument("--alias", metavar="NAME", action="append", default=[], help="a further name of the model")
    verify = commands.add_parser(
        "verify",
        help="run notebooks anew and say of every completion whether it is what was saved; exits with 1 if not",
        allow_abbrev=False,
    )
    verify.add_argument("notebooks", metavar="NOTEBOOK", nargs="+")
    verify.add_argument("--live", action="store_true", help="ask the endpoints again too; nothing is written")
    doctor = commands.add_parser(
        "doctor", help="ask an endpoint a dozen tiny requests, and say what it honours of the API", allow_abbrev=False
    )
    doctor.add_argument("endpoint", metavar="PROFILE|URL", nargs="?", help="by name, or by address up to /v1")
    doctor.add_argument("--model", metavar="NAME", help="the model, where it is not the profile's or the first")
    doctor.add_argument("--api-key-env", metavar="VAR", help="the environment variable that holds its key")
    doctor.add_argument("--api-key-from", metavar="PLACE", help="or where else it is: .env:NAME, keyring:NAME, prompt")
    doctor.add_argument("--allow-http", action="store_true", help="let the key go to another machine without TLS")
    commands.add_parser("demo", help="run a few cells in this terminal")
    return parser


def _examine(options: argparse.Namespace) -> int:
    from .client import Client
    from .doctor import examine, price
    from .profiles import choose_profile

    is_address = options.endpoint is not None and "://" in options.endpoint
    profile = choose_profile(
        None if is_address else options.endpoint,
        base_url=options.endpoint if is_address else None,
        api_key_env=options.api_key_env,
        api_key_from=options.api_key_from,
        allow_http=options.allow_http,
        model=options.model,
    )
    with Client(profile) as client:
        print(f"asking {client.name}: {price()}", flush=True)
        card = examine(client)
    print(card.plain())
    return 0 if card["completion"].verdict == "honoured" else 1


def _serve(options: argparse.Namespace) -> int:
    from .key import ApiKey
    from .local.server import make_server
    from .profiles import check_variable

    key = None
    if options.api_key_env is not None:
        check_variable(options.api_key_env)
        key = ApiKey(os.environ.get(options.api_key_env, ""), origin=f"the key in {options.api_key_env}")
    if not 0 <= options.port <= LAST_PORT or not options.host:
        raise ValueError(f"there is no address {options.host!r} with port {options.port}")
    logging.getLogger("waitress").setLevel(logging.ERROR)
    try:
        server = make_server(
            options.host, options.port, key=key, aliases=options.alias, allow_network=options.allow_network
        )
    except OSError as error:
        what = " is taken: --port 0 takes a free one" if error.errno == errno.EADDRINUSE else f": {error.strerror}"
        raise OSError(f"port {options.port} on {options.host}{what}") from None
    except UnicodeError:  # a part of it is empty, or longer than 63 characters
        raise ValueError(f"there is no address {options.host!r} with port {options.port}") from None
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"listening on http://{host}:{server.effective_port}/v1", flush=True)
    server.run()  # ends by itself at Ctrl-C
    return 0


if __name__ == "__main__":
    sys.exit(main())
