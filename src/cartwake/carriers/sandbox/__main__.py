"""`python -m cartwake.carriers.sandbox`: a sandbox as a process of its own.

Account SID, auth token, clock and the address for replies come from the `CARTWAKE_*` settings, so
that it fits the deployment beside it.
"""

from __future__ import annotations

import argparse
import socket
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from cartwake.carriers.sandbox import options_for, run
from cartwake.carriers.sandbox.faults import Faults
from cartwake.kit.clock import open_clock
from cartwake.kit.config import load_settings

DEFAULT_PORT = 8090


def main() -> None:
    """Parse the command line and serve until interrupted."""
    settings = load_settings()
    options = options_for(settings)
    parser = argparse.ArgumentParser(prog="cartwake sandbox", description="A Twilio-compatible carrier.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--inbound-url", default=options.inbound_url)
    parser.add_argument("--sent-after-ms", type=int, default=options.sent_after_ms)
    parser.add_argument("--delivered-after-ms", type=int, default=options.delivered_after_ms)
    parser.add_argument("--texts-max", type=int, default=options.texts_max)
    parser.add_argument("--journal", type=Path, help="remember everything in this file, whatever ends the process")
    parser.add_argument("--faults", type=faults_in, help="JSON file of what goes wrong, as PUT /sandbox/faults takes")
    # A port that whoever starts us has opened already, so that nobody else can take it in between.
    parser.add_argument("--listener-fd", type=int, help=argparse.SUPPRESS)
    chosen = vars(parser.parse_args())
    host, port, fd = chosen.pop("host"), chosen.pop("port"), chosen.pop("listener_fd")
    listener = socket.socket(fileno=fd) if fd is not None else None
    run(host, port, replace(options, **chosen), open_clock(settings.clock), listener)


def faults_in(path: str) -> Faults:
    """The faults in a file; a mistake in it becomes a line that says where."""
    try:
        return Faults.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise argparse.ArgumentTypeError(f"{path}: {problems}") from None


if __name__ == "__main__":
    main()
