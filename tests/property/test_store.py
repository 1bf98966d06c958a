"""The session store against a model in plain memory: two nodes, a moving clock, any order.

Laws, checked after every step
1. Every call answers what the model answers, on whichever node and after reopening.
2. No instance holds more sessions than `sessions_per_instance`.
3. What is promised is there: while its instances stay ready, a waiting caller with a
   live reservation that asks gets a place.
4. A token is let in once until it is given back or its claim lapses, and never after
   its session was activated. An ended session stays as it ended.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Places, SessionFilter
from relay.policy.sessions import Session, SessionEnd, SessionState
from relay.store.sqlite import SQLiteStore
from tests.helpers.store_model import ModelStore

AGENTS = (
    Agent("one", "acme", ("http://a:1", "http://a:2")),
    Agent("many", "acme", ("http://b:1", "http://b:2"), sessions_per_instance=2),
)
NODES = ("node-1", "node-2")
RESERVED_FOR, TOKEN_FOR, CLAIM_FOR = 30.0, 300.0, 40.0

sessions = st.integers(0, 3).map(lambda n: (f"s{n}", AGENTS[n % 2]))
nodes = st.sampled_from(NODES)
tokens = st.integers(0, 1)
orders = st.sampled_from([[0, 1], [1, 0], [0], [1], []])
startable = st.integers(0, 2)


class StoreMachine(RuleBasedStateMachine):
    """Two stores on one file and the model, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "relay.db"
        self.stores = {node: SQLiteStore(self.path, node) for node in NODES}
        self.model = ModelStore()
        self.now = 1000.0
        self.used: Counter[str] = Counter()  # admissions of each token not given back

    def teardown(self) -> None:
        for store in self.stores.values():
            store.close()
        self.folder.cleanup()

    def call(self, node: str, name: str, *arguments: Any) -> Any:
        """The store's answer, which is the model's too."""

        answer = trio.run(getattr(self.stores[node], name), *arguments)
        assert answer == getattr(self.model, name)(node, *arguments)
        return answer

    def same_in_any_order(self, node: str, name: str, *arguments: Any) -> None:
        answer = trio.run(getattr(self.stores[node], name), *arguments)
        expected = getattr(self.model, name)(node, *arguments)
        assert sorted(answer, key=str) == sorted(expected, key=str)

    def session(self, name: str, agent: Agent, reserved_until: float) -> Session:
        return Session(
            id=name,
            agent=agent.name,
            organization="acme",
            state=SessionState.RESERVED,
            created=self.now,
            reserved_until=reserved_until,
            expires=self.now + TOKEN_FOR,
        )

    @initialize(ready=st.booleans())
    def begin(self, ready: bool) -> None:
        self.always_ready = ready

    def places(self, agent: Agent, order: list[int], startable: int) -> Places:
        """In some runs both instances are ready, so that promises can be kept; else any."""
        if self.always_ready:
            order, startable = sorted({0, 1}, key=lambda n: n not in order), 0
        return Places(tuple(agent.instances[n] for n in order), startable)

    @rule(node=nodes, which=sessions, order=orders, later=startable)
    def reserve(self, node: str, which: tuple[str, Agent], order: list[int], later: int) -> None:
        name, agent = which
        if name not in self.model.sessions:
            session = self.session(name, agent, self.now + RESERVED_FOR)
            self.call(node, "reserve", session, agent, self.places(agent, order, later), self.now)

    @rule(node=nodes, which=sessions, token=tokens)
    def admit(self, node: str, which: tuple[str, Agent], token: int) -> None:
        name, agent = which
        nonce = f"{name}-{token}"
        lapsed = self.model.claim_lapsed(nonce, self.now)
        session = self.session(name, agent, 0.0)
        answer = self.call(node, "admit", session, nonce, self.now + CLAIM_FOR, self.now)
        if answer is Admission.ADMITTED:
            assert not self.used[nonce] or lapsed
            assert nonce not in self.model.spent
            self.used[nonce] += 1

    @rule(node=nodes, which=sessions, order=orders, later=startable)
    def lease(self, node: str, which: tuple[str, Agent], order: list[int], later: int) -> None:
        name, agent = which
        promised = self.model.is_promised(name, self.now)
        places = self.places(agent, order, later)
        answer = self.call(node, "lease", name, agent, places, self.now)
        if promised and self.always_ready:
            assert answer is not None

    @rule(node=nodes, which=sessions, token=tokens)
    def activate(self, node: str, which: tuple[str, Agent], token: int) -> None:
        nonce = f"{which[0]}-{token}"
        if self.model.claims(nonce, which[0]):
            self.call(node, "activate", which[0], nonce, self.now)

    @rule(node=nodes, which=sessions, token=st.none() | tokens)
    def give_back(self, node: str, which: tuple[str, Agent], token: int | None) -> None:
        name = which[0]
        nonces = [f"{name}-{n}" for n in ((0, 1) if token is None else (token,))]
        if token is not None and not self.model.claims(nonces[0], name):
            return
        before = self.model.sessions.get(name)
        self.call(node, "give_back", name, None if token is None else nonces[0], self.now)
        if before is not None and before is not self.model.sessions[name]:
            for nonce in nonces:
                self.used[nonce] = 0

    @rule(node=nodes, which=sessions, cause=st.sampled_from(["stopped", "bot_closed"]))
    def end(self, node: str, which: tuple[str, Agent], cause: str) -> None:
        self.call(node, "end", which[0], SessionEnd(cause, 1000, "why", "{}"), self.now)

    @rule(node=nodes, which=sessions, index=st.integers(0, 1))
    def free(self, node: str, which: tuple[str, Agent], index: int) -> None:
        name, agent = which
        session = self.model.sessions.get(name)
        # As the daemon does: what a session uses is freed only when it has ended.
        if session is None or session.state in (SessionState.RESERVED, SessionState.ENDED):
            self.call(node, "free", name, agent.instances[index])

    @rule(node=nodes, which=sessions)
    def request_stop(self, node: str, which: tuple[str, Agent]) -> None:
        self.call(node, "request_stop", which[0])

    @rule(seconds=st.sampled_from([0.5, 10.0, RESERVED_FOR, CLAIM_FOR, TOKEN_FOR]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(node=nodes)
    def sweep(self, node: str) -> None:
        self.same_in_any_order(node, "sweep", self.now)

    @rule(node=nodes)
    def reopen(self, node: str) -> None:
        self.stores[node].close()
        self.stores[node] = SQLiteStore(self.path, node)

    @rule(
        node=nodes,
        states=st.lists(st.sampled_from(SessionState), unique=True).map(tuple),
        agent=st.none() | st.sampled_from(["one", "many"]),
        limit=st.integers(0, 4),
        offset=st.integers(0, 4),
        organization=st.sampled_from([None, None, "acme", "other"]),
        causes=st.sampled_from([(), (), ("unused",), ("stopped", "client_closed")]),
        ago=st.sampled_from([(None, None), (30.0, None), (None, 30.0), (60.0, 0.5)]),
    )
    def find(
        self,
        node: str,
        states: Any,
        agent: str | None,
        limit: int,
        offset: int,
        organization: str | None,
        causes: Any,
        ago: tuple[float | None, float | None],
    ) -> None:
        since, before = (None if each is None else self.now - each for each in ago)
        self.call(
            node,
            "find",
            SessionFilter(states, agent, limit, offset, organization, causes, since, before),
        )

    @rule(node=nodes, what=st.sampled_from(["mine", "stop_requests", "leases"]))
    def look(self, node: str, what: str) -> None:
        self.same_in_any_order(node, what)

    @rule(node=nodes, which=sessions)
    def get(self, node: str, which: tuple[str, Agent]) -> None:
        self.call(node, "get", which[0])

    @invariant()
    def no_instance_holds_too_many(self) -> None:
        rows = self.stores[NODES[0]]._database.connection.execute(
            "SELECT agent, instance, count(*) FROM leases GROUP BY 1, 2"
        )
        most = {agent.name: agent.sessions_per_instance for agent in AGENTS}
        for agent, _, count in rows.fetchall():
            assert count <= most[agent]


TestStore = StoreMachine.TestCase
TestStore.settings = settings(stateful_step_count=30)
