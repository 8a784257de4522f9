"""HTTP: who is calling, what they sent, and how they are answered. No rules and no SQL are here."""
