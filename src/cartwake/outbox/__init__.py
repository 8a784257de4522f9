"""Outbox: what happened, told to the shop's own server until it says that it heard, or for a day."""
