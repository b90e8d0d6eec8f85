"""Connection strings without their secrets."""

from __future__ import annotations

import re

from psycopg import conninfo
from psycopg.errors import ProgrammingError

from vectorstore.errors import ConfigurationError

__all__ = ["check_dsn", "mask_dsn", "scrub"]

_MASK = "***"
_WORD_LENGTH_MAX = 8
"""A secret up to this long may be a part of ordinary words, and is masked only where it stands alone."""
_SECRET_KEYS = ("password", "sslpassword", "oauth_client_secret")
# Everything between the user's colon and the last @ there is: passwords may hold an @, / or #.
_URI_PASSWORD = re.compile(r"(?P<start>\b[a-z][a-z0-9+]*://[^:/?#\s]*:)\S*(?=@)", re.IGNORECASE)
# As libpq reads a URI: user and password end at the first @ that stands before any /.
_URI_PLACE = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?(?P<place>[^?]*)")
_PORTS = re.compile(r"[\d,\s]*")
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
        # The driver quotes what it could not read, which may be the password: not chained. Nor is it
        # quoted here: where a password ends is what nobody can tell.
        raise ConfigurationError(
            "the PostgreSQL DSN (DATABASE_URL, postgresql.dsn) cannot be read: give a URI such as "
            "postgresql://user:password@host:5432/database (percent-encode special characters)"
        ) from None
    if _ends_early(dsn) or not _PORTS.fullmatch(str(parts.get("port", ""))):
        # Part of the user or password was taken for host, port or database, which messages name.
        raise ConfigurationError(
            "the PostgreSQL DSN does not say what it seems to: its port is not a number, or its user or "
            "password has an @ or / in it: write @ as %40, / as %2F and : as %3A there"
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
            text = re.escape(str(secret))
            if len(str(secret)) <= _WORD_LENGTH_MAX:
                text = rf"(?<!\w){text}(?!\w)"
            message = re.sub(text, _MASK, message)
    return mask_dsn(message).strip()


def _ends_early(dsn: str) -> bool:
    """Whether there is an @ where hosts and the database stand: the user or password has gone on."""
    found = _URI_PLACE.match(dsn)
    return found is not None and "@" in found["place"]
