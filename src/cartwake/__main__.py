"""`python -m cartwake`: the same as the `cartwake` command."""

from cartwake.cli import main

main()
