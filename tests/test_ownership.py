"""The engine as one user may use it, where no route leads; tests/handlers/test_ownership.py asks on all that do."""

import asyncio
from dataclasses import replace

import pytest

from chat.commands import NewRetry
from chat.engine import Engine
from chat.errors import ChatError
from chat.ownership import UserEngine
from chat.records import Record
from chat.runs import Run
from chat.sessions import NewSession
from chat.terms import NO_TERMS, Terms
from tests.patience import soon
from tests.scripted import message


@pytest.fixture
async def run(engine: Engine) -> Run:
    """Ann's, and it is being written."""
    ann = UserEngine(engine, "ann")
    new = replace(message(session=NewSession("anns", "somebody")), terms=Terms("Be brief."))
    started = await ann.start(new)
    assert started.run.user_id == "ann"
    return started.run


def record(run: Run) -> Record:
    return Record("rec_1", "note", run.session_id, run.user_id, run.id, {}, 0)


async def test_nothing_of_anothers_run_can_be_had_by_its_id(engine: Engine, run: Run) -> None:
    bob = UserEngine(engine, "bob")
    for asking in (
        bob.run(run.id),
        bob.follower(run.id, 0),
        bob.resumable(run.id, 0),
        bob.result(run.id),
        bob.answer(run),
        bob.cancel(run.id, "requested"),
        bob.approve(run.id, "call_1", approved=True),
        bob.start(NewRetry("run_2", run.id, "scripted")),
        bob.store.events(run.id, 0, 10),
        bob.store.save_record(record(run)),
    ):
        with pytest.raises(ChatError) as refused:
            await asking
        assert refused.value.code == "not_found"
    assert await bob.store.terms(run.id) == NO_TERMS
    assert await bob.store.run(run.id) is None
    assert await bob.store.active_run(run.session_id) is None
    assert await bob.store.turn(run.message_id) is None
    assert await bob.store.message(run.message_id) is None
    assert await bob.store.summary(run.message_id) is None
    assert not await bob.delete_session(run.session_id)
    assert (await engine.run(run.id)).status.active


async def test_ones_own_can_be_had(engine: Engine, run: Run, gate: asyncio.Event) -> None:
    ann = UserEngine(engine, "ann")
    assert await ann.store.terms(run.id) == Terms("Be brief.")
    assert (await ann.store.events(run.id, 0, 10)).first_seq == 1
    await ann.store.save_record(record(run))
    gate.set()
    ended = await soon(UserEngine(engine, "ann").result(run.id))
    assert (await ann.answer(ended)).content == "Hi there"
    assert (await UserEngine(engine, "ann").answer(ended)).content == "Hi there"  # it is in no memory any more
    assert await ann.delete_session(run.session_id)


async def test_where_nobody_in_particular_asks_everything_is_there(engine: Engine, run: Run) -> None:
    everybody = UserEngine(engine, None)
    assert await everybody.run(run.id) == await engine.run(run.id)
    assert await everybody.store.terms(run.id) == Terms("Be brief.")
    assert (await everybody.store.events(run.id, 0, 10)).first_seq == 1
    with pytest.raises(ChatError) as taken:
        await everybody.store.create_session(NewSession("anns", "bob"))
    assert taken.value.code == "session_exists"
    assert await everybody.delete_session(run.session_id)


async def test_an_id_that_is_taken_is_told_only_to_whose_it_is(engine: Engine, run: Run) -> None:
    for user, code in (("ann", "session_exists"), ("bob", "not_found")):
        with pytest.raises(ChatError) as taken:
            await UserEngine(engine, user).store.create_session(NewSession(run.session_id, user))
        assert taken.value.code == code
