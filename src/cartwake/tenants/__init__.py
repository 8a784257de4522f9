"""Tenants: organizations, their shops, the keys that open their doors, and the one door of tenant scope."""
