"""Connection strings without their secrets."""

from __future__ import annotations

import re

from psycopg import conninfo
from psycopg.errors import ProgrammingError

from vectorstore.errors import ConfigurationError

__all__ = ["check_dsn", "mask_dsn", "scrub"]

_MASK = "***"
_SECRET_KEYS = ("password", "sslpassword", "oauth_client_secret")
# Everything between the user's colon and the last @ of the authority: passwords may hold an @.
_URI_PASSWORD = re.compile(
    r"(?P<start>\b[a-z][a-z0-9+]*://[^:/?#\s]*:)[^/?#\s]*(?=@)", re.IGNORECASE
)
_KEY_PASSWORD = re.compile(
    rf"(?P<key>\b(?:{'|'.join(_SECRET_KEYS)})\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&'\"]+)",
    re.IGNORECASE,
)


def check_dsn(dsn: str) -> str:
    """The DSN itself, if libpq can read it; else ConfigurationError that does not repeat it.

    An empty one is refused, which would mean whatever server libpq's own defaults lead to.
    """
    if not dsn.strip():
        raise ConfigurationError(
            "the PostgreSQL DSN (DATABASE_URL, postgresql.dsn) is empty: give a connection string, or "
            "leave it unset for the packaged server"
        )
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except (ProgrammingError, UnicodeError):
        # The driver quotes what it could not read, which may be the password: not chained.
        raise ConfigurationError(
            f"the PostgreSQL DSN {mask_dsn(dsn)!r} cannot be read: give a URI such as "
            "postgresql://user:password@host:5432/database (percent-encode special characters)"
        ) from None
    if "@" in str(parts.get("host", "")):
        # What follows the first @ of the authority was taken for the host, and messages name hosts.
        raise ConfigurationError(
            "the PostgreSQL DSN has an @ in its user or password: write it as %40, so that it is not "
            "taken for the beginning of the host"
        )
    return dsn


def mask_dsn(dsn: str) -> str:
    """The DSN with every secret replaced by ``***``, fit for logs and errors."""
    masked = _URI_PASSWORD.sub(rf"\g<start>{_MASK}", dsn)
    return _KEY_PASSWORD.sub(rf"\g<key>{_MASK}", masked)


def scrub(message: str, dsn: str) -> str:
    """A driver's message without the secrets of the DSN, wherever and however it quotes them."""
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except (ProgrammingError, UnicodeError):
        parts = {}
    for key in _SECRET_KEYS:
        secret = parts.get(key)
        if secret:
            message = message.replace(str(secret), _MASK)
    return mask_dsn(message).strip()
