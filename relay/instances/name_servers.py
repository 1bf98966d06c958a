"""Asking name servers, the system's or one by its address, with dnspython.

Apart from `relay/instances/dns.py`, since importing dnspython would be a seventh of a start.
"""

from __future__ import annotations

__all__ = ["addresses", "services"]

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import trio
from dns.rdata import Rdata
from dns.rdtypes.IN.SRV import SRV

from relay.instances.dns import LOOK_TIMEOUT, LookupFailure
from relay.policy.catalog import Address, DnsName
from relay.policy.names import Found, bounded, ranked, usable

# Targets of one SRV answer that are looked up at a time.
MAX_QUESTIONS = 16


async def services(name: DnsName, server: str) -> Found:
    """The instances of an SRV answer: one for each host and port in it (RFC 2782).

    Raises:
        LookupFailure: a name server did not say.
    """
    records, ttl = await _ask(name.name, "SRV", server)
    srv = [each for each in records if isinstance(each, SRV)]
    # The best last: of several records of one host and port that one counts.
    srv.sort(key=lambda each: (each.priority, -each.weight), reverse=True)
    # A host of "." says that there is no such service.
    pairs = {(each.target, each.port) for each in srv}
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
    urls = {
        (host, port): Address(found[host][0], port, name.secure).url
        for host, port in targets
        if found[host]
    }
    ranks = ranked(
        {
            urls[each.target, each.port]: (each.priority, each.weight)
            for each in srv
            if (each.target, each.port) in urls
        }
    )
    left_out = tuple(f"{host}:{port}" for host, port in more)
    return Found(tuple(dict.fromkeys(urls.values())), left_out, min(ttls, default=None), ranks)


async def addresses(name: str, server: str) -> tuple[list[str], float | None]:
    """The usable addresses of a name, and for how many seconds they hold.

    Raises:
        LookupFailure: the name server did not say.
    """
    return await _addresses(dns.name.from_text(name), server)


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
