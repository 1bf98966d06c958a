"""The table of requests side by side with nginx and HAProxy: `make test-peers`.

With `WRITE=1` in the environment docs/conformance.md is written anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.cases.groups import CASES, GROUPS
from tests.helpers.conformance import Case
from tests.helpers.conformance_run import standing
from tests.helpers.peers import PROGRAMS, Made, made_of, missing, peer, version
from tests.helpers.recording_origin import recording_origin

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
NAMES = {"nginx": "nginx", "haproxy": "HAProxy"}
Results = dict[str, Made]

TEXT = """\
# Conformance

What the daemon makes of {count} requests, good and bad ones, beside nginx {nginx} and
HAProxy {haproxy} in their default settings. The requests are a table in
`tests/conformance/cases`, each with the section of the RFC that it is about. Behind each one
stands a further request, which shows where the first one is taken to end. `make test` sends all
of them to the daemon, and to it the answers of a hostile bot; `make test-peers` sends the
requests to all three and checks this page.

A request is refused when it gets an error, or the connection ends without an answer to it. No
request that nginx or HAProxy refuse is accepted here, with these exceptions:

{exceptions}

## Refused

| about | requests | here | nginx | HAProxy |
|---|---|---|---|---|
{refused}

Requests that get 401, 403, 404 or 405 here count as accepted in this table: a proxy without keys
and routes cannot know them.

## Refused here, accepted there

By the cause of the refusal, see [http.md](http.md#refusals): how many requests, and how many of
them each passes on.

| cause here | requests | nginx | HAProxy | for example |
|---|---|---|---|---|
{only_here}
"""
# Refusals that are not about HTTP, but about what is behind it.
ROUTES = ("bad_api_key", "reserved_path", "no_such_path", "method_not_allowed")


def refused_here(case: Case) -> bool:
    refused = case.outcome.refused
    return refused is not None and refused[1] not in ROUTES


def is_gone(case: Case) -> bool:
    """The client has left in the middle: nobody accepts or refuses that."""
    return not case.outcome.seen and case.outcome.refused is None


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """What each program that is here makes of each case."""
    found: dict[str, Results] = {}
    for name in PROGRAMS:
        if missing(name) is None:
            with ExitStack() as stack:
                origin = stack.enter_context(recording_origin())
                port = stack.enter_context(peer(name, tmp_path_factory.mktemp(name), origin))
                found[name] = {case.id: made_of(case, port, origin) for case in CASES}
    return found


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    with standing(tmp_path_factory.mktemp("relay")) as stand:
        port, origin = stand.daemon.port, stand.origin
        yield {case.id: made_of(case, port, origin, stand.base) for case in CASES}


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_accepted_that_a_peer_refuses(
    results: dict[str, Results], relay: Results, name: str
) -> None:
    if name not in results:
        pytest.skip(str(missing(name)))
    accepted = [case for case in CASES if not relay[case.id].refuses and not is_gone(case)]
    assert accepted
    refused = [case.id for case in accepted if results[name][case.id].refuses]
    assert refused == [case.id for case in accepted if name in case.exception.lower()]


def test_the_table_is_what_the_daemon_does(relay: Results) -> None:
    for case in CASES:
        if not is_gone(case):
            assert relay[case.id].refuses == (case.outcome.refused is not None), case.id


def test_the_page(results: dict[str, Results]) -> None:
    absent = [str(missing(name)) for name in PROGRAMS if name not in results]
    if absent:
        pytest.skip("; ".join(absent))
    text = page(results)
    if os.environ.get("WRITE"):
        PAGE.write_text(text)
    written = PAGE.read_text()
    if any(f"{NAMES[name]} {version(name)}" not in " ".join(written.split()) for name in PROGRAMS):
        pytest.skip("the page is about other versions than those that are installed")
    assert own(written) == own(text), "WRITE=1 make test-peers writes the page anew"


def own(text: str) -> list[str]:
    """A page without the columns of the peers: HAProxy may pass the beginning of a bad body on
    or not, as it comes."""
    lines = text.splitlines()
    return ["|".join(line.split("|")[:3]) if line.startswith("|") else line for line in lines]


def page(results: dict[str, Results]) -> str:
    """The text of docs/conformance.md."""
    exceptions = [f"- {case.name}: {case.exception}." for case in CASES if case.exception]
    return TEXT.format(
        count=len(CASES),
        nginx=version("nginx"),
        haproxy=version("haproxy"),
        exceptions="\n".join(exceptions),
        refused="\n".join(group_rows(results)),
        only_here="\n".join(cause_rows(results)),
    )


def group_rows(results: dict[str, Results]) -> Iterator[str]:
    for group, cases in GROUPS.items():
        judged = [case for case in cases if not is_gone(case)]
        there = [
            sum(results[name][case.id].refuses for case in judged) for name in ("nginx", "haproxy")
        ]
        here = sum(map(refused_here, judged))
        yield f"| {group} | {len(judged)} | {here} | {there[0]} | {there[1]} |"


def cause_rows(results: dict[str, Results]) -> Iterator[str]:
    by_cause: dict[tuple[int, str], list[Case]] = {}
    for case in CASES:
        if case.outcome.refused and refused_here(case):
            by_cause.setdefault(case.outcome.refused, []).append(case)
    for (status, cause), cases in sorted(by_cause.items()):
        passed = {
            name: [case for case in cases if not results[name][case.id].refuses]
            for name in PROGRAMS
        }
        either = [case for case in cases if any(case in passed[name] for name in PROGRAMS)]
        if either:
            examples = "; ".join(case.name.replace("|", "bar") for case in spread(either))
            counts = " | ".join(str(len(passed[name])) for name in PROGRAMS)
            yield f"| {status} `{cause}` | {len(cases)} | {counts} | {examples} |"


def spread(cases: list[Case]) -> list[Case]:
    """Up to four of them, from the first to the last."""
    step = max(1, (len(cases) - 1) // 3)
    return cases[::step][:4]
