"""Whom limits count: a user who is known, otherwise an address."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

from handlers.identity import OPERATOR, Identity

ANONYMOUS = "anonymous-"
"""How the users begin whom nobody knows: a new one is had for nothing, and would have new limits."""

NETWORK_BITS = 64
"""Of an IPv6 address: the rest is the client's own to choose."""

KNOWN = 4_096
"""Addresses that are kept as they were read."""

LONGEST = 64
"""Characters of an address: the longest has 45, and an interface's name may stand behind it."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Client:
    """``user`` is None of an address. The two have names that cannot be mistaken for one another."""

    name: str
    user: str | None = None


class Clients:
    """``unlimited``: networks that are not counted, such as this machine, with a developer or a server in front."""

    def __init__(self, unlimited: Sequence[Network] = ()) -> None:
        self._unlimited = unlimited
        self._at = lru_cache(KNOWN)(self._read)

    def who(self, scope: Scope, identity: Identity) -> Client | None:
        """None for who is not counted: also a server in front that has shown its key and speaks for any user."""
        if identity.user and not identity.user.startswith(ANONYMOUS):  # nobody in particular has an empty name
            return Client(f"user {identity.user}", identity.user)
        if identity.any_user and identity is not OPERATOR:
            return None
        address = scope.get("client")
        # A Unix socket has none. What a proxy says may be a header's 64 KiB, and thousands are kept.
        return None if address is None else self._at(address[0][:LONGEST])

    def _read(self, text: str) -> Client | None:
        try:
            address = ip_address(text.partition("%")[0])  # behind it is the interface's name
        except ValueError:
            return Client(f"address {text}")  # what a proxy says of who has none, such as unknown
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if any(address in network for network in self._unlimited):
            return None
        if isinstance(address, IPv6Address):
            return Client(f"address {IPv6Network((address, NETWORK_BITS), strict=False)}")
        return Client(f"address {address}")
