"""What every store does: the sources of an answer, while its log is there and beyond."""

from dataclasses import replace

from chat.events import Event, RunCancelled, Source, TextDelta, completed
from chat.ports import Store
from chat.runs import Run
from chat.sessions import Turn
from tests.scripted import message
from tests.store.sites import logged, said

PAGE = Source("source_1", "https://a.example/ü", "Rain \0 ☃", start=0, end=5)
PASSAGE = Source("source_2", None, "Weather", "doc_1", "page 3", 0.0, "It rains.\n")
LOG: list[Event] = [TextDelta("It "), PAGE, TextDelta("rains."), PASSAGE]
END = completed("It rains.", "stop", None)


async def answered(store: Store, *log: Event) -> Run:
    run = (await store.start_run(message("Hello"))).run
    await store.commit([said(run, *log)])
    return run


async def test_sources_are_kept_with_the_answer(store: Store, other: Store) -> None:
    run = await answered(store, *LOG, END)
    question, answer = (await other.messages("ses_1", 10, None)).items
    assert (list(question.sources), list(answer.sources)) == ([], [PAGE, PASSAGE])
    assert await other.message(run.answer_id) == answer
    assert await other.turn(run.answer_id) == Turn("assistant", "It rains.", sources=answer.sources)
    assert await other.turn("msg_nowhere") is None
    assert await logged(other, run.id) == [*LOG, END]


async def test_model_is_not_told_of_sources(store: Store) -> None:
    """They have been said to the reader; the model's own words are what it is asked with."""
    run = await answered(store, *LOG, END)
    following = (await store.start_run(message("And?"))).run
    turns = await store.history(following.message_id, 10_000)
    assert [replace(turn, id=None) for turn in turns][1:] == [Turn("assistant", "It rains."), Turn("user", "And?")]
    assert following.session_id == run.session_id


async def test_sources_outlive_the_log(store: Store, other: Store) -> None:
    run = await answered(store, *LOG, END)
    await store.sweep(0)
    batch = await other.events(run.id, 0, 100)
    assert list(batch.events) == [PAGE, PASSAGE, TextDelta("It rains."), END]
    assert batch.first_seq + len(batch.events) - 1 == len(LOG) + 1  # the end has the place that it always had
    assert list((await other.events(run.id, len(LOG), 100)).events) == [END]
    [_, answer] = (await other.messages("ses_1", 10, None)).items
    assert list(answer.sources) == [PAGE, PASSAGE]


async def test_sources_of_an_answer_without_text_outlive_the_log_too(store: Store) -> None:
    run = await answered(store, PAGE, PASSAGE, RunCancelled("requested"))
    await store.sweep(0)
    batch = await store.events(run.id, 0, 100)
    assert (batch.first_seq, list(batch.events)) == (1, [PAGE, PASSAGE, RunCancelled("requested")])
