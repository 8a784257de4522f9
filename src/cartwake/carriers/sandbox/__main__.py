"""`python -m cartwake.carriers.sandbox`: a sandbox as a process of its own.

Account SID, auth token, clock and the address for replies come from the `CARTWAKE_*` settings, so
that it fits the deployment beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cartwake.carriers.sandbox import options_for, run
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
    chosen = vars(parser.parse_args())
    host, port = chosen.pop("host"), chosen.pop("port")
    print(f"Carrier sandbox on http://{host}:{port}", flush=True)
    run(host, port, replace(options, **chosen), open_clock(settings.clock))


if __name__ == "__main__":
    main()
