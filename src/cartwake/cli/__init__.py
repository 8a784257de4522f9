"""The `cartwake` command."""

from __future__ import annotations

import typer

from cartwake.cli import looking, operator, processes, recovery
from cartwake.cli.plumbing import fail
from cartwake.kit.config import ConfigError
from cartwake.kit.errors import CartwakeError

app = typer.Typer(
    name="cartwake",
    help="Self-hosted SMS cart recovery: wake the cart, never the customer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(processes.app)
app.add_typer(looking.app)
app.add_typer(recovery.app)
app.add_typer(operator.org_app, name="org")
app.add_typer(operator.shop_app, name="shop")
app.add_typer(operator.key_app, name="key")
app.add_typer(operator.number_app, name="number")
app.add_typer(operator.credits_app, name="credits")


def main() -> None:
    """Run the command line; a mistake ends in one clear line and status 1 or 2, never in a stack trace."""
    try:
        app()
    except ConfigError as error:
        fail(f"The configuration is wrong:\n{error}", 2)
    except CartwakeError as error:
        fail(error.detail)
