"""Looking names up: which instances does `dns+http://…` or `dns+srv+http://…` stand for?

Addresses come from the system's own resolver, as every other program of the machine or
container finds them (/etc/hosts, nsswitch, search domains). It knows neither SRV records
nor other name servers; those are asked with dnspython.
"""

from __future__ import annotations

__all__ = ["LookupFailure", "Resolver"]

import socket
from functools import partial

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import trio
from dns.rdata import Rdata
from dns.rdtypes.IN.SRV import SRV

from relay.policy.catalog import Address, DnsName
from relay.policy.names import Found, bounded, usable

# One look, with all that it asks: a name server that is slower is taken for a dead one.
LOOK_TIMEOUT = 5.0
# The system's resolver blocks a thread for as long as its own timeouts last. Apart from
# the threads of the store, which must not wait for name servers.
MAX_THREADS = 8
# Targets of one SRV answer that are looked up at a time.
MAX_QUESTIONS = 16
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
                if name.port is None:
                    return await _services(name.name, server)
                if server:
                    addresses, ttl = await _addresses(dns.name.from_text(name.name), server)
                else:
                    addresses, ttl = await self._system(name.name), None
        except trio.TooSlowError:
            raise LookupFailure(f"no answer within {LOOK_TIMEOUT:g} s") from None
        urls, left_out = bounded([Address(host, name.port).url for host in addresses])
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


async def _services(name: str, server: str) -> Found:
    """The instances of an SRV answer: one for each host and port in it (RFC 2782).

    Weight and priority are not looked at: every instance holds a bounded number of sessions.
    """
    records, ttl = await _ask(name, "SRV", server)
    # A host of "." says that there is no such service.
    pairs = {(each.target, each.port) for each in records if isinstance(each, SRV)}
    targets, more = bounded(sorted(pair for pair in pairs if pair[0] != dns.name.root and pair[1]))
    found: dict[dns.name.Name, list[str]] = {}
    ttls, failures = [] if ttl is None else [ttl], list[LookupFailure]()
    limiter = trio.CapacityLimiter(MAX_QUESTIONS)

    async def look(host: dns.name.Name) -> None:
        try:
            async with limiter:
                found[host], ttl = await _addresses(host, server)
        except LookupFailure as error:
            failures.append(error)
        else:
            ttls.extend([] if ttl is None else [ttl])

    async with trio.open_nursery() as nursery:
        for host in {host for host, _ in targets}:
            nursery.start_soon(look, host)
    if failures:
        raise failures[0]
    # A record names one host: several addresses of it are those of one bot.
    urls = {Address(found[host][0], port).url: None for host, port in targets if found[host]}
    return Found(
        tuple(urls), tuple(f"{host}:{port}" for host, port in more), min(ttls, default=None)
    )


async def _addresses(host: dns.name.Name, server: str) -> tuple[list[str], float | None]:
    """The usable addresses of a host, and for how long they hold."""
    for kind in ("A", "AAAA"):
        records, ttl = await _ask(host, kind, server)
        if addresses := usable(record.to_text() for record in records):
            return addresses, ttl
    return [], None


async def _ask(
    name: dns.name.Name | str, kind: str, server: str
) -> tuple[list[Rdata], float | None]:
    """The records of a name, and for how long they hold; none if it has none of this kind."""
    try:
        answer = await _resolver(server).resolve(
            name, kind, search=not server, lifetime=LOOK_TIMEOUT
        )
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return [], None
    except (dns.exception.DNSException, OSError) as error:
        raise LookupFailure(str(error)) from None
    return list(answer), float(answer.chaining_result.minimum_ttl)


def _resolver(server: str) -> dns.asyncresolver.Resolver:
    if not server:
        return dns.asyncresolver.Resolver()  # reads /etc/resolv.conf each time, as others do
    address = Address.of(f"http://{server}")
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address.host], address.port
    return resolver
