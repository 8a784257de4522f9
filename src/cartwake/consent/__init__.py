"""Consent: who agreed to be texted by which shop, who took it back, and the proof of both."""
