"""Cartwake: self-hosted, multi-tenant SMS cart recovery."""

__version__ = "0.1.0"
