"""The sandbox: a Twilio-compatible server that ships with Cartwake, for demonstrations and tests.

Everything is in memory (with `--journal FILE` beyond the process's end, however it comes) and nothing
leaves the machine but webhooks to our own web. Two doors:
`/2010-04-01/…` speaks Twilio's API (what a carrier would do), `/sandbox/…` is for people and tests
(what a shopper would do, and what should go wrong). The second door has no lock, so the server
listens on the loopback address unless it is told otherwise.

    server       one sandbox: both doors on one port
    messages_api, numbers_api, accounts_api, resources    Twilio's door, and how Twilio writes things down
    control_api  the other door
    state        what is remembered: texts, numbers, STOP lists, scripts      journal    and kept in a file
    rules        what Twilio refuses at once         delivery   what becomes of an accepted text
    encoding     how many parts a text has           callbacks  signing and posting webhooks
    faults       what goes wrong, and for whom
"""

from cartwake.carriers.sandbox.faults import Faults
from cartwake.carriers.sandbox.server import Sandbox, options_for, run, running_sandbox
from cartwake.carriers.sandbox.state import Options, Recipient

__all__ = ["Faults", "Options", "Recipient", "Sandbox", "options_for", "run", "running_sandbox"]
