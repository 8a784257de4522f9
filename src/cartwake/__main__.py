"""Where the `cartwake` command begins, and `python -m cartwake`: Ctrl-C ends it quietly, however early it comes.

Only the interpreter's own start, some hundredths of a second, comes before.
"""

import sys

# What shells report of a program that Ctrl-C ended.
INTERRUPTED = 130

try:
    import signal  # takes longer than all that stands above
except KeyboardInterrupt:
    sys.exit(INTERRUPTED)


def main() -> None:
    """Run the command line."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started us ignores it
    # While modules load, and after all is done, nothing has to be tidied up: end as a program without a handler does.
    _on_interrupt(signal.SIG_DFL, is_ours)
    try:
        from cartwake.cli import main as run  # most of what starting takes

        _on_interrupt(signal.default_int_handler, is_ours)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        _on_interrupt(signal.SIG_DFL, is_ours)


def _on_interrupt(handler: "signal._HANDLER", is_ours: bool) -> None:
    if is_ours:
        signal.signal(signal.SIGINT, handler)


if __name__ == "__main__":
    main()
