"""What every store does: keep the files of imports until they are done, once, for whoever has the run."""

import asyncio
from dataclasses import replace

import pytest

from chat.commands import Claim
from chat.documents import Chunk, KnownDocument, NewDocument
from chat.errors import ChatError
from chat.events import ImportStarted, RunCancelled, completed
from chat.ids import new_id
from chat.imports import ImportFile, NewImport, Refusal
from chat.intake import File
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import NewSession
from store.sql import SqlStore
from tests.patience import soon
from tests.store.sites import Site, logged, said

TOO_LARGE, UNREADABLE = Refusal("document_too_large", "Too large."), Refusal("document_unreadable", "No \0 text.")


def brought(*, user: str | None = "ann", claim: Claim | None = None) -> NewImport:
    """Three files, the second of which is refused already."""
    files = [File(name, name, "text/plain", data) for name, data in (("a", b"Tea\0\xff"), ("b", b"x" * 9), ("c", b""))]
    refusals = [None, TOO_LARGE, None]
    session = NewSession(new_id("ses"), user or "anonymous-1")
    return NewImport(new_id("run"), session, user, "box", list(zip(files, refusals, strict=True)), claim, "trace")


def document(title: str = "a", user: str | None = "ann") -> NewDocument:
    return NewDocument(new_id("doc"), user, "box", title, "text/plain", 3, [Chunk("paragraph 1", "Tea")], f"{title}00")


async def started(store: SqlStore) -> Run:
    return (await store.start_import(brought())).run


async def titles(store: SqlStore) -> list[str]:
    return [known.title for known in await store.known_documents("ann", "box")]


async def test_files_are_kept_with_their_run(store: SqlStore, other: SqlStore) -> None:
    new = brought()
    run = (await store.start_import(new)).run
    assert run == await other.run(new.id)
    assert (run.kind, run.status, run.user_id, run.epoch, run.trace) == (
        RunKind.IMPORT, RunStatus.RUNNING, "ann", 1, "trace",
    )  # fmt: skip
    assert await other.import_files(run.id) == [
        ImportFile(1, "a", "a", "text/plain", 5, "box", "ann"),
        ImportFile(2, "b", "b", "text/plain", 9, "box", "ann", refusal=TOO_LARGE),
        ImportFile(3, "c", "c", "text/plain", 0, "box", "ann"),
    ]
    assert [await other.import_content(run.id, number) for number in (1, 3)] == [b"Tea\0\xff", b""]
    assert await store.import_files("run_none") == []


async def test_file_is_done_once(store: SqlStore, other: SqlStore) -> None:
    run, first = await started(store), document()
    done = await store.import_document(run, 1, first, 0)
    assert (done.document, done.chunks, done.done) == (first.id, 1, True)
    assert await store.import_document(run, 1, document("again"), 0) == done
    assert await store.import_refused(run, 1, UNREADABLE) == done
    refused = await store.import_refused(run, 3, UNREADABLE)
    assert (refused.document, refused.refusal, refused.done) == (None, UNREADABLE, True)
    assert await store.import_document(run, 3, document("late"), 0) == refused
    assert [file.done for file in await other.import_files(run.id)] == [True, True, True]
    assert await titles(other) == ["a"]
    for number in (1, 2, 3):
        with pytest.raises(ChatError, match="run_taken"):
            await store.import_content(run.id, number)


async def test_document_over_the_limit_leaves_its_file_as_it_is(store: SqlStore) -> None:
    run = await started(store)
    await store.import_document(run, 1, document(), 1)
    with pytest.raises(ChatError, match="too_many_documents"):
        await store.import_document(run, 3, document("c"), 1)
    assert not (await store.import_files(run.id))[2].done
    assert await titles(store) == ["a"]


async def test_dead_process_imports_nothing_any_more(site: Site, store: SqlStore, other: SqlStore) -> None:
    run = await started(store)
    await store.commit([said(run, ImportStarted(3, 14))])
    await site.kill(store)
    [taken] = await other.claim()
    assert (taken.id, taken.epoch) == (run.id, 2)
    with pytest.raises(ChatError, match="run_taken"):
        await store.import_document(run, 1, document(), 0)
    with pytest.raises(ChatError, match="run_taken"):
        await store.import_refused(run, 1, UNREADABLE)
    assert (await other.import_document(taken, 1, document(), 0)).done
    assert await titles(other) == ["a"]


async def test_process_that_is_thought_dead_imports_nothing_though_nobody_has_taken_over(
    store: SqlStore,
) -> None:
    run = await started(store)
    await store.hand_back()
    with pytest.raises(ChatError, match="run_taken"):
        await store.import_document(run, 1, document(), 0)
    assert await titles(store) == []


async def test_files_are_gone_when_their_import_has_ended(store: SqlStore) -> None:
    stopped, ended, going = [await started(store) for _ in range(3)]
    await store.import_document(ended, 1, document(), 0)
    await store.commit([said(stopped, RunCancelled("requested")), said(ended, completed("", "stop"))])
    assert [await store.import_files(run.id) for run in (stopped, ended)] == [[], []]
    assert len(await store.import_files(going.id)) == 3
    assert await titles(store) == ["a"]
    await store.sweep(0)
    assert await logged(store, ended.id) == [completed("", "stop")]  # what is left of a log after its retention


async def test_import_that_is_deleted_while_a_document_is_stored_has_it_or_not(
    store: SqlStore, other: SqlStore
) -> None:
    for _ in range(10):
        run = await started(store)
        storing = asyncio.create_task(store.import_document(run, 1, document(), 0))
        deleting = asyncio.create_task(other.delete_session(run.session_id))
        assert await soon(deleting)
        [outcome] = await asyncio.gather(storing, return_exceptions=True)
        assert isinstance(outcome, ImportFile) or (isinstance(outcome, ChatError) and outcome.code == "run_taken")
        assert await other.import_files(run.id) == []


async def test_key_stands_for_one_import(store: SqlStore, other: SqlStore) -> None:
    claim = Claim("key", "same")
    begun = await soon(asyncio.gather(*[one.start_import(brought(claim=claim)) for one in (store, other) * 3]))
    assert len({started.run.id for started in begun}) == 1
    assert sorted(started.replayed for started in begun) == [False, *[True] * 5]
    with pytest.raises(ChatError, match="idempotency_conflict"):
        await store.start_import(brought(claim=replace(claim, fingerprint="other")))


async def test_session_of_an_import_is_listed_by_wish_alone(store: SqlStore) -> None:
    run = await started(store)
    await store.create_session(NewSession("ses_1", "ann"))
    assert [session.id for session in (await store.sessions("ann", 9, None)).items] == ["ses_1"]
    beside = (await store.sessions("ann", 9, None, beside=True)).items
    assert {session.id for session in beside} == {"ses_1", run.session_id}
    assert await store.session(run.session_id) is None


async def test_known_documents_are_ones_own(store: SqlStore) -> None:
    mine, shared = document(), document("b", None)
    for new in (mine, shared, document("c", "bob"), replace(document("d"), collection="other")):
        await store.add_document(new, 0)
    assert await store.known_documents("ann", "box") == [KnownDocument(mine.id, "a", "a00")]
    assert await store.known_documents(None, "box") == [KnownDocument(shared.id, "b", "b00")]
