"""The cases of requests by what they are about, and all of them."""

from __future__ import annotations

from tests.conformance.cases import chunks, connections, framing, heads, targets

GROUPS = {
    "two framings": framing.BOTH,
    "transfer codings": framing.CODINGS,
    "lengths": framing.LENGTHS,
    "chunk sizes": chunks.SIZES,
    "ends of chunks": chunks.ENDS,
    "chunk extensions": chunks.EXTENSIONS,
    "trailers": chunks.TRAILERS,
    "line ends": heads.LINES,
    "request lines, methods": heads.REQUEST_LINES,
    "versions": heads.VERSIONS,
    "Host": heads.HOSTS,
    "fields": heads.FIELDS,
    "forms of targets": targets.FORMS,
    "bytes of targets": targets.BYTES,
    "hop-by-hop fields": connections.FIELDS,
    "Expect": connections.EXPECT,
    "upgrades": connections.UPGRADES,
    "pipelining": connections.PIPELINES,
}
CASES = [case for cases in GROUPS.values() for case in cases]
