"""Carriers: whoever takes a text from us and hands it to a phone."""
