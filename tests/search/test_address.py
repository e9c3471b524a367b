"""Addresses of databases: what is kept of them, and that nothing secret is shown."""

from __future__ import annotations

import pytest

from evaluators.options import OptionError
from search.address import Address


@pytest.mark.parametrize(
    ("text", "url", "secrets"),
    [
        ("postgresql://me@host/db", "postgresql://me@host/db", {}),
        ("postgres://host:5433/db", "postgresql://host:5433/db", {}),
        ("postgresql+psycopg://me:word@host/db", "postgresql://me@host/db", {"password": "word"}),
        ("postgresql://me:w%40%2Frd@host/db", "postgresql://me@host/db", {"password": "w@/rd"}),
        ("postgresql://:word@host/db", "postgresql://host/db", {"password": "word"}),
        ("postgresql:///db?host=/run/here", "postgresql:///db?host=/run/here", {}),
        ("postgresql://[::1]:1,other/db", "postgresql://[::1]:1,other/db", {}),
        ("postgresql://?service=mine", "postgresql://?service=mine", {}),
        (
            "postgresql://h/db?password=a%20b&sslmode=require&sslpassword=c",
            "postgresql://h/db?sslmode=require",
            {"password": "a b", "sslpassword": "c"},
        ),
        ("postgresql://h/db?p%61ssword=word", "postgresql://h/db", {"password": "word"}),
    ],
)
def test_what_is_secret_is_taken_out(text: str, url: str, secrets: dict[str, str]) -> None:
    address = Address.parse(text)
    assert address.url == url
    assert dict(address.secrets) == secrets
    assert Address.parse(url) == Address(url)
    assert "word" not in repr(address)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://me:word@host/db", "mysql://..."),
        ("sqlite:///study.db", "sqlite://..."),
        ("study.db", "study.db"),
        ("host=host password=word", "..."),
        ("POSTGRESQL://me:word@host/db", "POSTGRESQL://..."),
        ("postgresql:me:word@host/db", "..."),
        ("postgresql://me:wo@rd@host/db", "postgresql://..."),
        ("postgresql://me:wo/rd@host/db", "postgresql://..."),
        ("postgresql://me:wo?rd@host/db", "postgresql://..."),
        ("postgresql://me:word", "postgresql://..."),
        ("postgresql://me:wo rd@host/db", "postgresql://..."),
        ("postgresql://me@host:word/db", "postgresql://..."),
        ("postgresql://me:word@host/db\nmore", "postgresql://..."),
    ],
)
def test_what_is_no_address_of_postgresql_is_refused_and_not_shown(text: str, shown: str) -> None:
    with pytest.raises(OptionError) as refused:
        Address.parse(text)
    assert str(refused.value).startswith(f"--storage {shown}: must be postgresql://USER@HOST/DATABASE")
    assert "word" not in str(refused.value).replace("passwords", "")
    assert "\n" not in str(refused.value)
