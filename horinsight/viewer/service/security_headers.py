"""What browsers are told with every answer of the viewer: speak to this server and no other, whatever it says."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import streamlit as st

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

INLINE = re.compile(r"<script(?P<attributes>[^>]*)>(?P<code>.*?)</script>", re.DOTALL)


def inline_hashes(page: str) -> list[str]:
    """Sources of a policy that let the inline scripts of an HTML page run, and no others.

    Example:
        >>> inline_hashes("<script>a()</script><script src='b.js'></script>")
        ["'sha256-qVpDBgj7bpq5hMAcGp3AOc79J3Y1Z4HvySTwKrWDoy4='"]
    """
    codes = [found["code"] for found in INLINE.finditer(page) if "src=" not in found["attributes"]]
    return [f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in codes]


def content_policy(page: str) -> str:
    """The content security policy that Streamlit needs, and nothing beyond it.

    Its components come as `blob:` modules and its look as inline styles; its page has an inline script, which changes
    with its versions. Nothing needs `eval`.

    Args:
        page: Streamlit's index.html.
    """
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self' blob:", *inline_hashes(page)]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "media-src 'self' blob:",
            "worker-src 'self' blob:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    )


def security_headers() -> dict[str, str]:
    """The headers, by name."""
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    return {
        "content-security-policy": content_policy(page),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "SAMEORIGIN",
        "cross-origin-opener-policy": "same-origin",
    }


class SecurityHeaders:
    """Adds the headers to every answer; web sockets pass untouched.

    Args:
        app: what answers.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in security_headers().items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ours = {name for name, _ in self.headers}

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
                message = {**message, "headers": [*others, *self.headers]}
            await send(message)

        await self.app(scope, receive, with_headers)
