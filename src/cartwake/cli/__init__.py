"""The `cartwake` command."""

from __future__ import annotations

import psycopg
import typer

from cartwake.cli import consent, events, looking, operator, processes, recovery
from cartwake.cli.plumbing import LOOK, MERCHANTS, RUN, fail
from cartwake.kit.config import ConfigError
from cartwake.kit.db import ailment
from cartwake.kit.errors import CartwakeError
from cartwake.kit.schema import NotReadyError

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
for name, group in (
    ("org", operator.org_app),
    ("shop", operator.shop_app),
    ("key", operator.key_app),
    ("number", operator.number_app),
    ("credits", operator.credits_app),
):
    app.add_typer(group, name=name, rich_help_panel=MERCHANTS)
app.add_typer(consent.consent_app, name="consent", rich_help_panel=LOOK)
app.add_typer(events.events_app, name="events", rich_help_panel=RUN)


command = typer.main.get_command(app)  # once: 8 ms, which `app()` would take with each call


def main() -> None:
    """Run the command line; a mistake ends in one clear line and status 1 or 2, never in a stack trace."""
    try:
        command()
    except ConfigError as error:
        fail(f"The configuration is wrong:\n{error}", 2)
    except CartwakeError as error:
        fail(error.detail)
    except NotReadyError as error:
        fail(str(error))
    except psycopg.Error as error:
        if told := ailment(error):
            fail(told)
        if not isinstance(error, psycopg.OperationalError):
            raise
        fail(f"The database went away: {str(error).strip()}")
