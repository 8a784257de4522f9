"""Write docs/configuration.md from the settings themselves: `python docs/make_configuration.py`."""

from __future__ import annotations

from pathlib import Path

from cartwake.kit.config_listing import Listed, list_settings

PAGE = Path(__file__).with_name("configuration.md")


def line(setting: Listed) -> str:
    """One line of the table."""
    cells = (f"`{setting.variable}`", setting.meaning, setting.takes, f"`{setting.default}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The whole page."""
    lines = "\n".join(line(setting) for setting in list_settings())
    return f"""# Configuration

Written by `python docs/make_configuration.py` from the settings that the code reads; a test compares them. Every
process reads them from its environment once, at its start. `cartwake config` says which are set and from where, and
`cartwake config --check` only what is wrong (exit 2). A wrong value stops the start with its name and the reason; a
`CARTWAKE_` variable that is none of these is warned about with the nearest name.

A **secret** may come from a file, as container platforms mount them: `CARTWAKE_<NAME>_FILE=/run/secrets/name` in
place of `CARTWAKE_<NAME>`. One line break at the file's end is dropped. A file that is missing, cannot be read or is
empty stops the start, and so does setting both.

| variable | meaning | takes | default |
|---|---|---|---|
{lines}

What a merchant chooses for a shop (send window, delays, caps) is no setting of the deployment: `/v1/sms-config`.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
