"""When a person may be texted: country rules, time zones, windows. Pure."""
