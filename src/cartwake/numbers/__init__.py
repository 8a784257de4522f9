"""Numbers: the senders that shops text from, which of them may text whom, and how fast."""
