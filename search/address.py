"""The address of a PostgreSQL database: what may be shown and kept, apart from what may not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from evaluators.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How an address may begin. The last one is how SQLAlchemy names the same.
SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")

#: Parameters of an address that are kept out of every file and message.
_SECRET = frozenset(
    {"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}
)

_FORM = "must be postgresql://USER@HOST/DATABASE"

_ADDRESS = re.compile(
    r"""(?: (?P<user>[^:@/?]*) (?: : (?P<password>[^@/?]*) )? @ )?
        (?P<place> (?:HOST (?:,HOST)*)? (?: /[^?@]* )? )
        (?: \? (?P<query>[^@]*) )?""".replace("HOST", r"(?: \[[^]@/?,]*\] | [^][:@/?,]* ) (?: :[0-9]* )?"),
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Attributes:
        url: As libpq reads it, without what is secret; equal addresses of one spelling are equal here.
        secrets: Parameters of libpq that the address had, percent signs decoded.
    """

    url: str
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take an address apart.

        A password that holds ``@``, ``/`` or ``?`` would end up in what is shown; such an address is refused,
        and then nothing of it is shown.

        Raises:
            OptionError: If it is not one of PostgreSQL, or not well formed.
        """
        scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), None)
        if scheme is None:
            raise OptionError(
                "storage", _hidden(text), f"{_FORM}; without it, the record is a file of the run folder."
            )
        found = _ADDRESS.fullmatch(text.removeprefix(scheme))
        if found is None or not text.isprintable() or " " in text:
            raise OptionError(
                "storage",
                _hidden(text),
                f"{_FORM}, with special characters of names and passwords percent-encoded, as %40 for @.",
            )
        secrets = {"password": unquote(found["password"])} if found["password"] else {}
        shown = []
        for part in (found["query"] or "").split("&"):
            name, _, value = part.partition("=")
            if unquote(name).lower() in _SECRET:
                secrets[unquote(name).lower()] = unquote(value)
            elif part:
                shown.append(part)
        user = f"{found['user']}@" if found["user"] else ""
        query = f"?{'&'.join(shown)}" if shown else ""
        return cls(f"{SCHEMES[0]}{user}{found['place']}{query}", MappingProxyType(secrets))


def _hidden(text: str) -> str:
    """Of something that is no address, what can not be a password."""
    if re.fullmatch(r"[\w./~-]*", text):
        return text
    scheme = re.match(r"[A-Za-z][\w+.-]*://", text)
    return f"{scheme[0] if scheme else ''}..."
