"""The reference at `/docs`, drawn from the API's own description: plain HTML without scripts."""
