"""Looking names up: which instances does `dns+http://…` or `dns+srv+http://…` stand for?

Addresses come from the system's own resolver, as every other program of the machine or
container finds them (/etc/hosts, nsswitch, search domains). It knows neither SRV records
nor other name servers; those are asked with dnspython (`relay/instances/name_servers.py`).
"""

from __future__ import annotations

__all__ = ["LookupFailure", "Resolver"]

import socket
from functools import partial

import trio

from relay.policy.catalog import Address, DnsName
from relay.policy.names import Found, bounded, usable

# One look, with all that it asks: a name server that is slower is taken for a dead one.
LOOK_TIMEOUT = 5.0
# The system's resolver blocks a thread for as long as its own timeouts last. Apart from
# the threads of the store, which must not wait for name servers.
MAX_THREADS = 8
# What getaddrinfo says of a name that has no address; anything else is a failure.
NO_ADDRESS = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)


class LookupFailure(Exception):
    """Nobody could say what a name stands for; the text says why."""


class Resolver:
    """Looks names up; one per daemon."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(MAX_THREADS)

    async def look(self, name: DnsName, server: str) -> Found:
        """What a name stands for now.

        Args:
            server: `host:port` of a name server to ask, or "" for those of the system.

        Raises:
            LookupFailure: that can't be known. A name that does not exist is no failure,
                it stands for no instance.
        """
        try:
            with trio.fail_after(LOOK_TIMEOUT):
                if name.port is not None and not server:
                    addresses, ttl = await self._system(name.name), None
                else:
                    from relay.instances import name_servers  # large, and seldom needed

                    if name.port is None:
                        return await name_servers.services(name, server)
                    addresses, ttl = await name_servers.addresses(name.name, server)
        except trio.TooSlowError:
            raise LookupFailure(f"no answer within {LOOK_TIMEOUT:g} s") from None
        urls, left_out = bounded([Address(host, name.port, name.secure).url for host in addresses])
        return Found(tuple(urls), tuple(left_out), ttl)

    async def _system(self, name: str) -> list[str]:
        ask = partial(socket.getaddrinfo, name, 0, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(
                ask, abandon_on_cancel=True, limiter=self._threads
            )
        except socket.gaierror as error:
            if error.errno in NO_ADDRESS:
                return []
            raise LookupFailure(error.strerror) from None
        except OSError as error:
            raise LookupFailure(str(error)) from None
        return usable(str(address[0]) for *_, address in found)
