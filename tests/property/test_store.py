"""The session store against a model in plain memory: three nodes, a clock that is set, any order.

Laws, checked after every step
1. Every call answers what the model answers, on whichever node and after reopening.
2. No instance holds more sessions than `sessions_per_instance`.
3. What is promised is there: while its instances stay ready, a waiting caller with a
   live reservation that asks gets a place.
4. A token is let in once until it is given back or its claim lapses, and never after
   its session was activated. An ended session stays as it ended.
5. Leases and live sessions belong to nodes that are known, so that somebody clears up
   after them; what a node has started itself may wait for that node.

And at the end of every run, when the nodes that live have cleared up: no lease, no live
session, and every session has ended once.
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
from relay.policy.nodes import Neighbour
from relay.policy.sessions import Beginning, Session, SessionEnd, SessionState
from relay.store.places import SET_BACK
from relay.store.sqlite import SQLiteStore
from tests.helpers.store_model import ModelStore

AGENTS = (
    Agent("one", "acme", ("http://a:1", "http://a:2")),
    Agent("many", "acme", ("http://b:1", "http://b:2"), sessions_per_instance=2, max_sessions=3),
    Agent("own", "acme", command=("bot",)),
)
INSTANCES = {"one": AGENTS[0].instances, "many": AGENTS[1].instances, "own": ("http://c:1",) * 2}
NODES = ("node-1", "node-2", "node-3")
RESERVED_FOR, TOKEN_FOR, CLAIM_FOR = 30.0, 300.0, 40.0

sessions = st.integers(0, 5).map(lambda n: (f"s{n}", AGENTS[n % 3]))
nodes = st.sampled_from(NODES)
tokens = st.integers(0, 1)
orders = st.sampled_from([[0, 1], [1, 0], [0], [1], []])
startable = st.integers(0, 2)
together = st.sampled_from([0, 0, 0, 2])
ends = st.builds(
    SessionEnd,
    st.sampled_from(["stopped", "bot_closed"]),
    st.just(1000),
    st.just("why"),
    st.just("{}"),
    st.sampled_from([None, 2.5]),
)


class StoreMachine(RuleBasedStateMachine):
    """Two stores on one file and the model, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "relay.db"
        self.stores = {node: SQLiteStore(self.path, node) for node in NODES}
        self.model = ModelStore()
        self.now = 1000.0
        self.was_set_back = False
        self.used: Counter[str] = Counter()  # admissions of each token not given back
        self.ended: Counter[str] = Counter()
        self.dead: dict[str, bool] = {}  # nodes without a control process; whether pumps live
        self.seen: dict[tuple[str, str], Neighbour] = {}  # by whom, whom
        self.lives: Counter[str] = Counter()  # how often each node has joined
        for node in NODES:
            self.join(node)

    def teardown(self) -> None:
        try:
            self.clear_up()
        finally:
            for store in self.stores.values():
                store.close()
            self.folder.cleanup()

    def clear_up(self) -> None:
        """Who is dead is taken over by the next, who lives starts anew and finds no call."""
        heir = next((node for node in NODES if node not in self.dead), NODES[0])
        self.dead = dict.fromkeys(self.dead.keys() - {heir}, False)
        self.join(heir)
        self.beat(heir)
        for node in sorted(self.dead):
            self.take_over(heir, node)
            del self.dead[node]
            self.join(node)  # for what it has started itself
        for node in NODES:
            self.recover(node)
        for name, instance in list(self.model.held):
            self.call(heir, "free", name, instance)
        # Whatever the clock was set to: a token's time comes.
        self.now = max((each.expires for each in self.model.sessions.values()), default=0.0)
        self.sweep(heir)
        assert [trio.run(self.stores[node].leases) for node in NODES] == [[], [], []]
        assert all(each.state is SessionState.ENDED for each in self.model.sessions.values())
        assert all(self.ended[name] == 1 for name in self.model.sessions)

    def call(self, node: str, name: str, *arguments: Any, **more: Any) -> Any:
        """The store's answer, which is the model's too; None from a node that is dead."""
        if node in self.dead:
            return None

        async def ask() -> Any:
            return await getattr(self.stores[node], name)(*arguments, **more)

        answer = trio.run(ask)
        assert answer == getattr(self.model, name)(node, *arguments, **more)
        return answer

    def same_in_any_order(self, node: str, name: str, *arguments: Any) -> None:
        if node in self.dead:
            return
        answer = trio.run(getattr(self.stores[node], name), *arguments)
        expected = getattr(self.model, name)(node, *arguments)
        assert sorted(answer, key=str) == sorted(expected, key=str)
        if name == "sweep":
            self.ended.update(session.id for session in answer)

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
        urls = dict.fromkeys(INSTANCES[agent.name][n] for n in order)
        return Places(tuple(urls), startable)

    @rule(node=nodes, which=sessions, order=orders, later=startable, together=together)
    def reserve(
        self, node: str, which: tuple[str, Agent], order: list[int], later: int, together: int
    ) -> None:
        name, agent = which
        if name not in self.model.sessions:
            session = self.session(name, agent, self.now + RESERVED_FOR)
            places = self.places(agent, order, later)
            self.call(node, "reserve", session, agent, places, self.now, together)

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

    @rule(
        node=nodes,
        which=sessions,
        order=orders,
        later=startable,
        together=together,
        defer=st.booleans(),
    )
    def lease(
        self,
        node: str,
        which: tuple[str, Agent],
        order: list[int],
        later: int,
        together: int,
        defer: bool,
    ) -> None:
        name, agent = which
        kept = self.always_ready and not (self.was_set_back or agent.command or node in self.dead)
        promised = kept and self.model.is_promised(node, name, self.now)
        places = self.places(agent, order, later)
        answer = self.call(node, "lease", name, agent, places, self.now, together, defer=defer)
        if promised:
            assert isinstance(answer, str)

    @rule(node=nodes, which=sessions, token=tokens, pumped=st.booleans())
    def activate(self, node: str, which: tuple[str, Agent], token: int, pumped: bool) -> None:
        nonce = f"{which[0]}-{token}"
        if self.model.claims(nonce, which[0]):
            beginning = Beginning(queued=0.5, took=self.now % 7, cold=pumped, pumped=pumped)
            self.call(node, "activate", which[0], nonce, self.now, beginning)

    @rule(
        node=nodes,
        which=sessions,
        token=tokens,
        cause=st.sampled_from([None, "no_instance", "bot_refused"]),
    )
    def give_back(self, node: str, which: tuple[str, Agent], token: int, cause: str | None) -> None:
        name, nonce = which[0], f"{which[0]}-{token}"
        if not self.model.claims(nonce, name):
            return
        before = self.model.sessions.get(name)
        self.call(node, "give_back", name, nonce, self.now, cause)
        if before is not None and before is not self.model.sessions[name]:
            self.used[nonce] = 0

    @rule(node=nodes, which=sessions, token=tokens)
    def pass_on(self, node: str, which: tuple[str, Agent], token: int) -> None:
        name, nonce = which[0], f"{which[0]}-{token}"
        if not self.model.claims(nonce, name):
            return
        before = self.model.sessions.get(name)
        self.call(node, "pass_on", name, nonce)
        if before is not None and before is not self.model.sessions[name]:
            self.used[nonce] = 0

    @rule(node=nodes, which=sessions, end=ends)
    def end(self, node: str, which: tuple[str, Agent], end: SessionEnd) -> None:
        if self.call(node, "end", which[0], end, self.now) is not None:
            self.ended[which[0]] += 1

    @rule(node=nodes, which=sessions, index=st.integers(0, 1))
    def free(self, node: str, which: tuple[str, Agent], index: int) -> None:
        name, agent = which
        session = self.model.sessions.get(name)
        # As the daemon does: what a session uses is freed only when it has ended.
        if session is None or session.state in (SessionState.RESERVED, SessionState.ENDED):
            self.call(node, "free", name, INSTANCES[agent.name][index])

    @rule(node=nodes, which=sessions)
    def request_stop(self, node: str, which: tuple[str, Agent]) -> None:
        self.call(node, "request_stop", which[0])

    @rule(seconds=st.sampled_from([0.5, 10.0, RESERVED_FOR, CLAIM_FOR, TOKEN_FOR]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([-5.0, -3600.0, 3600.0]))
    def set_clock(self, seconds: float) -> None:
        self.now = max(1.0, self.now + seconds)
        self.was_set_back |= seconds <= -SET_BACK

    @rule(node=nodes)
    def sweep(self, node: str) -> None:
        self.same_in_any_order(node, "sweep", self.now)

    # Nodes.

    def join(self, node: str) -> None:
        trio.run(self.stores[node].join, f"/run/{node}", lambda _place: False)
        self.model.join(node, f"/run/{node}")
        self.lives[node] += 1

    @rule(node=nodes)
    def beat(self, node: str) -> None:
        if node in self.dead:
            return
        others = trio.run(self.stores[node].beat)
        assert {each.name: (each.place, each.beat) for each in others} == self.model.beat(node)
        for each in others:
            self.seen[node, each.name] = each

    @rule(node=nodes, pumps=st.booleans())
    def die(self, node: str, pumps: bool) -> None:
        """The control process dies, and perhaps its pumps too, now or later."""
        self.dead[node] = pumps and self.dead.get(node, True)
        self.stores[node].close()
        self.stores[node] = SQLiteStore(self.path, node)

    @rule(node=nodes)
    def come_back(self, node: str) -> None:
        """The calls in its pumps are found again, all others are not."""
        if node in self.dead:
            pumps = self.dead.pop(node)
            self.join(node)
            mine = self.model.mine(node) if pumps else []
            self.recover(node, {each.id for each in mine if each.pumped and each.started})

    def recover(self, node: str, live: frozenset[str] | set[str] = frozenset()) -> None:
        estate = trio.run(self.stores[node].recover, live, self.now)
        self.inherited(estate, self.model.recover(node, live, self.now))

    @rule(node=nodes, index=st.integers(0, 2), known=st.sampled_from([(), ("s0", "s1", "s2")]))
    def take_over_the_dead(self, node: str, index: int, known: tuple[str, ...]) -> None:
        if self.dead and node not in self.dead:
            self.beat(node)
            self.take_over(node, sorted(self.dead)[index % len(self.dead)], known)

    @rule(node=nodes, other=nodes)
    def take_over(self, node: str, other: str, known: tuple[str, ...] = ()) -> None:
        """As it was when it was seen last, perhaps long ago."""
        seen = self.seen.get((node, other))
        if node in self.dead or seen is None:
            return
        fresh = other in self.dead and self.model.lives.get(other) == (seen.place, seen.beat)
        ends = {name: SessionEnd("client_closed", lasted=1.0) for name in known}
        more: dict[str, Any] = {"ends": ends, "foreign": ["own"]}

        async def take_over(pumps: bool) -> Any:
            return await self.stores[node].take_over(seen, self.now, pumps=pumps, **more)

        if other not in self.dead and self.model.lives[other] == (seen.place, seen.beat):
            return  # whoever asks has seen that it holds no lock
        estate = trio.run(take_over, self.dead.get(other, False))
        if not fresh:
            assert estate is None
            return
        self.inherited(estate, self.model.take_over(node, seen, self.now, self.dead[other], **more))

    def inherited(self, estate: Any, expected: Any) -> None:
        for kind in ("ended", "leases"):
            found = getattr(estate, kind)
            assert sorted(found, key=str) == sorted(getattr(expected, kind), key=str)
        self.ended.update(session.id for session in estate.ended)
        for name, session in self.model.sessions.items():
            if session.state is SessionState.RESERVED and session.cause == "lost":
                for token in (0, 1):
                    self.used[f"{name}-{token}"] = 0

    @rule(
        node=nodes,
        states=st.lists(st.sampled_from(SessionState), unique=True).map(tuple),
        agent=st.none() | st.sampled_from(["one", "many"]),
        limit=st.integers(0, 4),
        offset=st.integers(0, 4),
        organization=st.sampled_from([None, None, "acme", "other"]),
        causes=st.sampled_from([(), (), ("unused",), ("stopped", "client_closed")]),
        ago=st.sampled_from([(None, None), (30.0, None), (None, 30.0), (60.0, 0.5)]),
        start=st.sampled_from([(None, None, None), (True, None, None), (False, 1.0, 5.0)]),
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
        start: tuple[bool | None, float | None, float | None],
    ) -> None:
        since, before = (None if each is None else self.now - each for each in ago)
        self.call(
            node,
            "find",
            SessionFilter(
                states, agent, limit, offset, organization, causes, since, before, *start
            ),
        )

    @rule(node=nodes, what=st.sampled_from(["stop_requests", "leases"]))
    def look(self, node: str, what: str) -> None:
        self.same_in_any_order(node, what)

    @rule(node=nodes, which=sessions)
    def get(self, node: str, which: tuple[str, Agent]) -> None:
        self.call(node, "get", which[0])

    @invariant()
    def no_instance_holds_too_many(self) -> None:
        rows = self.stores[NODES[0]]._database.connection.execute(
            "SELECT agent, instance, iif(agent = 'own', node, ''), count(*) FROM leases "
            "GROUP BY 1, 2, 3"
        )
        most = {agent.name: agent.sessions_per_instance for agent in AGENTS}
        for agent, _, _, count in rows.fetchall():
            assert count <= most[agent]

    @invariant()
    def nothing_belongs_to_nobody(self) -> None:
        db = self.stores[NODES[0]]._database.connection
        known = {name for (name,) in db.execute("SELECT name FROM nodes")}
        leases = db.execute("SELECT node FROM leases WHERE agent <> 'own'")
        live = db.execute("SELECT node FROM sessions WHERE state IN ('waiting', 'active')")
        assert {node for (node,) in [*leases, *live]} <= known


TestStore = StoreMachine.TestCase
TestStore.settings = settings(stateful_step_count=30)
