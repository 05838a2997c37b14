"""Addresses of servers and databases, as they may be told to anyone."""

from urllib.parse import urlsplit, urlunsplit


def without_password(address: str) -> str:
    """An address without its user name and password, if it has them."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address
