"""The parts of the limits by themselves: windows, places, clients, budgets, and who is late."""

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import Usage
from chat.ports import Finished
from handlers.budgets import Budgets
from handlers.clients import Client, Clients
from handlers.door import Line
from handlers.identity import OPERATOR, Identity
from handlers.places import Places
from handlers.rates import FIRST_SWEEP, Memory, Rates
from tests.patience import soon
from tests.scripted import ScriptedModel, engine_on, everything, message

# --- rates


class Clock:
    def __init__(self, now: float = 0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab")), max_size=60))
def test_no_window_has_more_than_the_rate(asked: list[tuple[int, str]]) -> None:
    clock = Clock()
    rates = Rates("requests", "3/10 seconds", clock)
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for pause, client in asked:
        clock.now += pause
        inside = [moment for moment in taken[client] if moment > clock.now - 10]
        over = rates.over(client)
        assert (over is None) == (len(inside) < 3)
        if over is None:
            rates.count(client)
            taken[client].append(clock.now)
        else:
            assert over == (["requests-10s"], inside[0] + 10 - clock.now)


def test_rate_of_none_counts_nothing() -> None:
    rates = Rates("requests", "0", Clock())
    assert not rates
    rates.count("a")
    assert (rates.over("a"), rates.policy, rates.state("a")) == (None, "", "")


def test_clients_that_were_away_for_a_window_are_forgotten() -> None:
    clock = Clock()
    memory = Memory(clock)
    for number in range(10 * FIRST_SWEEP):
        clock.now += 1
        assert memory.acquire_entry(f"client {number}", 1, 100)
    assert len(memory) <= FIRST_SWEEP
    assert not memory.acquire_entry(f"client {number}", 1, 100)  # this one is remembered


def test_rate_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        Rates("requests", "many", Clock())


# --- places


def test_places_are_taken_and_left_by_name() -> None:
    places = Places(2)
    for name in ("a", "a", "b"):
        assert not places.full(name)
        places.take(name)
    assert (places.full("a"), places.full("b"), len(places)) == (True, False, 3)
    places.leave("a")
    assert (places.full("a"), places.count("a")) == (False, 1)
    places.leave("a")
    places.leave("b")
    assert len(places) == 0
    unlimited = Places(0)
    unlimited.take("a")
    assert not unlimited.full("a")


# --- clients

FAR = {"client": ("203.0.113.7", 1)}


@pytest.mark.parametrize(
    ("identity", "client"),
    [
        (OPERATOR, Client("address 203.0.113.7")),
        (Identity("ann"), Client("user ann", "ann")),
        (Identity("ann", any_user=True), Client("user ann", "ann")),
        (Identity("anonymous-7d2"), Client("address 203.0.113.7")),
        (Identity(None, any_user=True), None),
        (Identity(None, admin=True, any_user=True), None),
        (Identity(None), Client("address 203.0.113.7")),
        (Identity(""), Client("address 203.0.113.7")),
    ],
)
def test_client_is_the_user_who_is_known_or_else_the_address(identity: Identity, client: Client | None) -> None:
    assert Clients().who(FAR, identity) == client


def test_own_addresses_are_no_clients_and_their_users_are() -> None:
    clients = Clients([ip_network("203.0.113.0/24")])
    assert clients.who(FAR, OPERATOR) is None
    assert clients.who({"client": None}, OPERATOR) is None  # a Unix socket
    assert clients.who(FAR, Identity("ann")) == Client("user ann", "ann")


def test_what_a_proxy_says_of_an_address_is_not_kept_whole() -> None:
    client = Clients().who({"client": ("x" * 60_000, 1)}, OPERATOR)
    assert client is not None
    assert len(client.name) < 100


def test_user_and_address_of_the_same_name_are_two() -> None:
    address = Clients().who(FAR, OPERATOR)
    user = Clients().who(FAR, Identity("203.0.113.7"))
    assert address is not None
    assert user is not None
    assert address.name != user.name


# --- budgets


async def test_known_user_has_what_all_processes_have_left_of_the_day(tmp_path: Path) -> None:
    model = ScriptedModel(["Hi", Finished("stop", Usage(60, 40, "reported"))])
    clock, ann = Clock(datetime.now(UTC).timestamp()), Client("user ann", "ann")
    async with engine_on(tmp_path / "chat.db", model) as engine:
        started = await engine.start(message())  # ann's, and no budget was told of it
        await everything(engine, started.run.id)
        await Budgets(101, clock).check(ann, engine)
        await Budgets(0, clock).check(ann, engine)
        await Budgets(100, clock).check(Client("user ben", "ben"), engine)
        with pytest.raises(ChatError) as caught:
            await Budgets(100, clock).check(ann, engine)
        assert (caught.value.code, caught.value.details["used_tokens"]) == ("budget_spent", 100)
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 86_400
        clock.now += 86_400
        await Budgets(100, clock).check(ann, engine)


# --- the door


class Caller:
    def __init__(self) -> None:
        self.late_ = asyncio.Event()

    def late(self) -> None:
        self.late_.set()


async def test_those_who_take_too_long_are_late_in_turn_and_no_others() -> None:
    line, callers = Line(0.01), [Caller() for _ in range(3)]
    for caller in callers:
        line.join(caller)
    line.leave(callers[1])
    for caller in (callers[0], callers[2]):
        await soon(caller.late_.wait())
    assert not callers[1].late_.is_set()
    assert len(line) == 0
    line.join(callers[1])  # there is a timer again
    await soon(callers[1].late_.wait())


async def test_one_too_many_takes_the_place_of_the_first() -> None:
    line, callers = Line(600, 2), [Caller() for _ in range(3)]
    for caller in callers:
        line.join(caller)
    assert [caller.late_.is_set() for caller in callers] == [True, False, False]
    assert len(line) == 2
    line.close()
    assert len(line) == 0
