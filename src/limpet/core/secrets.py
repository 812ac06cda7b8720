"""Secrets stay out of locks, messages and logs: what counts as one, and how it is taken out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

# The user part may hold unescaped `@`; it ends at the last one before the path.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/\s?#\"'`<>]*)@")
_SECRET_PARAMETER = re.compile(
    r"(?i)([?&](?:[a-z0-9_.-]*(?:token|secret|password|passwd|signature|credential|api[-_]?key)"
    r"[a-z0-9_.-]*|sig|key|auth)=)[^&\s#\"'`<>]+"
)
# A conda channel's token: https://HOST/t/TOKEN/CHANNEL
_TOKEN_PATH = re.compile(r"(?P<place>://[^\s\"'`<>]{1,200}?/t/)[A-Za-z0-9_-]{6,}(?=[/\s\"'`<>]|$)")
_HEADER = re.compile(r"(?i)\b(authorization:\s*)(?:bearer|basic|token)?\s*[A-Za-z0-9+/=._~-]+")
HIDDEN = "***"


def scrub(url: str) -> str:
    """The URL as it may be written down: without user, password or token.

    `git@` of an ssh URL is a fixed account name and part of the address; it stays.
    """
    match = _USERINFO.match(url)
    if match:
        user = match["user"].split(":", 1)[0] if match["scheme"].endswith("ssh") else ""
        url = f"{match['scheme']}://{user}{'@' if user else ''}{url[match.end() :]}"
    if not _SECRET_PARAMETER.search(url):
        return url
    parts = urlsplit(url)
    kept = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not _SECRET_PARAMETER.match(f"?{name}=x")
    ]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def scrub_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Text as it may be shown: every URL in it without its user part, and no known secret."""
    for secret in secrets:
        if len(secret) > 2:  # a shorter one would only hide letters of ordinary words
            text = text.replace(secret, HIDDEN)
    text = _USERINFO.sub(_hide_user, text)
    text = _SECRET_PARAMETER.sub(rf"\g<1>{HIDDEN}", text)
    text = _TOKEN_PATH.sub(rf"\g<place>{HIDDEN}", text)
    return _HEADER.sub(rf"\g<1>{HIDDEN}", text)


def _hide_user(match: re.Match[str]) -> str:
    return match[0] if _is_account(match) else f"{match['scheme']}://{HIDDEN}@"


def find_secret_urls(text: str) -> tuple[str, ...]:
    """The URLs in a text that carry a user part: where a download may find its credentials."""
    return tuple(
        match[0]
        for match in re.finditer(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'`<>,;]+", text)
        if (user := _USERINFO.match(match[0])) and not _is_account(user)
    )


def _is_account(user: re.Match[str]) -> bool:
    """Whether it is a fixed account name, as the `git@` of an ssh URL: no secret."""
    return user["scheme"].endswith("ssh") and ":" not in user["user"]


def find_passwords(urls: Iterable[str]) -> tuple[str, ...]:
    """The passwords and tokens in URLs, as they stand there and as they are meant."""
    users = [match["user"] for url in urls if (match := _USERINFO.match(url))]
    words = [user.partition(":")[2] or user for user in users]
    return tuple(dict.fromkeys(form for word in words for form in (word, unquote(word))))
