"""`python -m chaos`, from the folder of the tests. Exit status 1 when anything is that must not be."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from cartwake.kit.config import load_settings
from cartwake.kit.logs import configure_logs
from chaos.plan import Size
from chaos.report import Report
from chaos.run import run


def main() -> int:
    """Parse the command line, play one run, print its report."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="at least so many (20000)")
    parser.add_argument("--kills", type=int, default=100, help="how many times something is killed (100)")
    parser.add_argument("--seed", type=int, default=1, help="who does what, who is killed and when (1)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills, on average (5)")
    parser.add_argument("--speed", type=float, default=40.0, help="virtual seconds per real second (40)")
    chosen = parser.parse_args()
    size = Size(
        messages=chosen.messages, kills=chosen.kills, seed=chosen.seed, every_s=chosen.every, speed=chosen.speed
    )
    configure_logs(load_settings(log_level="warning"))
    folder = Path(tempfile.mkdtemp(prefix="cartwake-chaos-"))
    print(f"logs, journal and database: {folder} (removed when all is well)", file=sys.stderr, flush=True)
    report = asyncio.run(_until_told_to_stop(size, folder))
    report.print()
    if report.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if report.is_good else 1


async def _until_told_to_stop(size: Size, folder: Path) -> Report:
    """SIGTERM ends a run as Ctrl-C does: everything is stopped in good order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(size, folder)


if __name__ == "__main__":
    sys.exit(main())
