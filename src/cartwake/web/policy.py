"""What a browser may do with our pages for people: use the page's own style, and next to nothing else."""

from __future__ import annotations

import base64
import hashlib


def content_policy(style: str, *, form_action: str) -> str:
    """A Content-Security-Policy (w3.org/TR/CSP3): no script, picture, font or frame; `style` by its hash alone.

    `form_action`: where forms may lead, as the policy writes it: `'self'` or `'none'`.
    """
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; form-action {form_action}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
