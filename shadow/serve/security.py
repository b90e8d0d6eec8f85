"""Who may do what: tokens, the hosts and origins that are answered, and the headers of every response."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from shadow.config import ServeSettings
from shadow.serve.problems import Problem
from vectorstore.errors import ConfigurationError

__all__ = ["HEADERS", "Callers", "Tokens", "control_allowed", "is_loopback", "write_allowed"]

TOKEN_LENGTH_MIN = 16
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

WRITE = HTTPBearer(auto_error=False, scheme_name="write", description="The token for writes.")
CONTROL = HTTPBearer(auto_error=False, scheme_name="control", description="The token for control.")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Digests of the tokens; equal length, so that a comparison tells nothing. ``None``: not set."""

    write: bytes | None
    control: bytes | None
    # Without a write token, whoever is on this machine may write.
    writes_open: bool

    @classmethod
    def of(cls, settings: ServeSettings) -> Tokens:
        """Read them.

        Raises ConfigurationError for a file that cannot be read or is empty, a short token, and one
        token for both.
        """
        write = _digest("write_token", settings.write_token, settings.write_token_file)
        control = _digest("control_token", settings.control_token, settings.control_token_file)
        if write is not None and write == control:
            raise ConfigurationError(
                "serve.write_token and serve.control_token are the same, so that whoever may write "
                "could also decide which store answers: make another one for control with "
                "`openssl rand -hex 32`"
            )
        return cls(write=write, control=control, writes_open=is_loopback(settings.host))

    def check_write(self, given: str | None) -> None:
        """Raises Problem unless this caller may write."""
        if self.write is None:
            if not self.writes_open:
                raise Problem(
                    "forbidden",
                    "writes are refused: the proxy listens beyond this machine and no write token is "
                    "set; set serve.write_token_file",
                )
            return
        _check(self.write, given, "writing")

    def check_control(self, given: str | None) -> None:
        """Raises Problem unless this caller may decide."""
        if self.control is None:
            raise Problem(
                "forbidden",
                "control is refused: no control token is set; set serve.control_token_file, or decide "
                "with the command `shadow` on this machine",
            )
        _check(self.control, given, "control")


@dataclass(frozen=True, slots=True)
class Callers:
    """Which hosts requests may be addressed to, and which origins pages may have that send them.

    A page of another site cannot read our answers, but it could make a browser on this machine send
    us requests, even under a name of its own that it lets point at this address.
    """

    hosts: frozenset[str] | None

    @classmethod
    def of(cls, settings: ServeSettings) -> Callers:
        """Any host is answered only where the address is open to the network and no host is named."""
        named = {host.lower() for host in settings.hosts_allowed}
        if not named and not is_loopback(settings.host):
            return cls(None)
        return cls(frozenset({*named, *LOOPBACK_NAMES, settings.host.lower()}))

    def check(self, host: str, origin: str | None) -> None:
        """Raises Problem for a request that is meant for another host or comes from another's page."""
        if self.hosts is not None and _name(host) not in self.hosts:
            raise Problem(
                "misdirected",
                "this proxy does not answer for that host name; see serve.hosts_allowed",
            )
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Problem("forbidden", "requests from the pages of another origin are refused")


async def write_allowed(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(WRITE)]
) -> None:
    """Dependency of what writes."""
    request.app.state.tokens.check_write(given.credentials if given else None)


async def control_allowed(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(CONTROL)]
) -> None:
    """Dependency of what decides."""
    request.app.state.tokens.check_control(given.credentials if given else None)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _digest(name: str, value: SecretStr | None, path: Path | None) -> bytes | None:
    if value is not None and path is not None:
        raise ConfigurationError(f"serve.{name} and serve.{name}_file are both set; set one")
    source = f"serve.{name}"
    if path is not None:
        source = f"serve.{name}_file: the token in {path}"
        value = SecretStr(_read(name, path))
    if value is None:
        return None
    token = value.get_secret_value()
    if len(token) < TOKEN_LENGTH_MIN:
        raise ConfigurationError(
            f"{source} is shorter than {TOKEN_LENGTH_MIN} characters; make one with "
            "`openssl rand -hex 32`"
        )
    return sha256(token.encode()).digest()


def _read(name: str, path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            f"serve.{name}_file: {path} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError:
        # Not chained: Python's words show a byte of what may be the token.
        raise ConfigurationError(f"serve.{name}_file: {path} is not text in UTF-8") from None
    if not token:
        raise ConfigurationError(
            f"serve.{name}_file: {path} is empty or holds only white space; put a token into it with "
            f"`openssl rand -hex 32 > {path}`"
        )
    return token


def _check(wanted: bytes, given: str | None, what: str) -> None:
    if given is None:
        raise Problem(
            "unauthorized", f"{what} needs its token in the header `Authorization: Bearer ...`"
        )
    if not hmac.compare_digest(wanted, sha256(given.encode()).digest()):
        raise Problem(
            "unauthorized", f"the token in the header `Authorization` is not the one for {what}"
        )
