import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

import pytest

from chat.breaker import FAILURES, FIRST_PAUSE
from chat.context import Budgets
from chat.errors import ModelError
from chat.events import ModelSelected, TextDelta
from chat.ports import ModelRequest, Part
from chat.providers import Target
from chat.routing import Choice, Router
from chat.runs import RunKind
from chat.sessions import Turn
from tests.asking import ask
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, Step

A, B, C = (Target(f"{provider}/model", provider, f"{provider}-model") for provider in ("a", "b", "c"))
OTHER_A = Target("a/other", "a", "a-other")
HI: list[Step] = ["Hi ", "there", STOP]
SAID: list[Part] = [TextDelta("Hi "), TextDelta("there"), STOP]


def down(code: str = "upstream_unreachable", wait: float | None = None) -> ModelError:
    return ModelError(code, "It is down.", retryable=True, transient=True, retry_after=wait)


def late() -> ModelError:
    return ModelError("upstream_timeout", "It is late.", retryable=True, transient=True, taken=True)


def refused(*, final: bool = False) -> ModelError:
    return ModelError("upstream_rejected", "No.", retryable=False, final=final)


def asking(model: str = "", prefix: str = "") -> ModelRequest:
    return ModelRequest([Turn("user", "Hello")], prefix, model=model)


def held(gate: threading.Event) -> Callable[[], None]:
    def prepare() -> None:
        assert gate.wait(10)

    return prepare


class Providers:
    """Scripted models by their providers; connected when a router asks for them."""

    def __init__(self, **scripts: list[Step]) -> None:
        self.models = {name: ScriptedModel(script) for name, script in scripts.items()}
        self.connected: list[str] = []
        self.now = 0.0

    def connect(self, target: Target) -> ScriptedModel:
        self.connected.append(target.provider)
        return self.models[target.provider]

    def router(self, *offered: Target, fallbacks: tuple[Target, ...] = ()) -> Router:
        return Router(offered, fallbacks, self.connect, lambda: self.now)

    def asked(self, provider: str) -> list[str]:
        """The models that were asked for there."""
        return [asked.request.model for asked in self.models[provider].requests]


async def test_model_that_is_asked_for_answers_and_the_log_says_no_more_than_ever() -> None:
    there = Providers(a=HI, b=HI)
    router = there.router(A, B, fallbacks=(C,))
    assert await ask(router, asking("b/model")) == (SAID, None)
    assert await ask(router, asking("a/model")) == (SAID, None)
    assert await ask(router, asking()) == (SAID, None)
    assert (there.asked("a"), there.asked("b")) == (["a-model", "a-model"], ["b-model"])


async def test_provider_has_one_client_for_all_its_models_made_when_it_is_needed() -> None:
    there = Providers(a=HI, b=HI)
    router = there.router(A, OTHER_A, B)
    assert there.connected == []
    await ask(router, asking("a/other"))
    await ask(router, asking("a/model"))
    assert there.connected == ["a"]
    assert there.asked("a") == ["a-other", "a-model"]
    await router.close()
    assert (there.models["a"].closed, there.models["b"].closed) == (True, False)


async def test_default_may_be_connected_before_it_is_needed() -> None:
    there = Providers(a=HI, b=HI)
    router = there.router(A, B)
    await router.connect()
    assert there.connected == ["a"]
    await ask(router)
    assert there.connected == ["a"]


async def test_who_asks_waits_for_what_has_to_come_before_any_client() -> None:
    there = Providers(a=HI)
    imported = threading.Event()
    router = Router([A], [], there.connect, prepare=held(imported))
    router.connect()
    asked = asyncio.create_task(ask(router))
    await asyncio.sleep(0)
    assert there.connected == []
    imported.set()
    assert await asked == (SAID, None)
    assert there.connected == ["a"]
    await router.close()


async def test_what_is_being_prepared_is_done_before_the_end() -> None:
    there = Providers(a=HI)
    imported = threading.Event()
    router = Router([A], [], there.connect, prepare=held(imported))
    router.connect()
    closing = asyncio.create_task(router.close())
    await asyncio.sleep(0)
    imported.set()
    await closing
    assert there.models["a"].closed


async def test_what_could_not_be_prepared_is_said_to_who_asks() -> None:
    def prepare() -> None:
        raise ImportError("no such module")

    router = Router([A], [], Providers(a=HI).connect, prepare=prepare)
    router.connect()
    with pytest.raises(ImportError):
        await ask(router)


async def test_model_that_is_not_known_any_more_is_replaced_by_the_default() -> None:
    router = Providers(a=HI).router(A)
    assert await ask(router, asking("gone")) == ([ModelSelected("a/model", "default"), *SAID], None)


async def test_model_that_is_only_a_fallback_answers_the_runs_it_began() -> None:
    there = Providers(a=HI, b=HI)
    assert await ask(there.router(A, fallbacks=(B,)), asking("b/model")) == (SAID, None)


@pytest.mark.parametrize(
    "error", [down(), down("upstream_timeout"), down("upstream_rate_limited", 60), refused()], ids=lambda e: e.code
)
async def test_next_model_answers_while_nothing_was_shown(error: ModelError) -> None:
    there = Providers(a=[error], b=[error], c=HI)
    router = there.router(A, fallbacks=(B, C))
    expected = [ModelSelected("c/model", "fallback", error.code), *SAID]
    assert await ask(router, asking("a/model")) == (expected, None)
    assert [there.asked(name) for name in "abc"] == [["a-model"], ["b-model"], ["c-model"]]


async def test_first_failure_is_the_cause() -> None:
    there = Providers(a=[down("upstream_timeout")], b=[refused()], c=HI)
    parts, _ = await ask(there.router(A, fallbacks=(B, C)))
    assert parts[0] == ModelSelected("c/model", "fallback", "upstream_timeout")


async def test_models_that_had_taken_the_request_up_are_named_by_whoever_answers_and_by_the_failure_of_all() -> None:
    there = Providers(a=[late()], b=[down()], c=HI)
    router = there.router(A, fallbacks=(B, C))
    assert await ask(router) == ([ModelSelected("c/model", "fallback", "upstream_timeout", ("a/model",)), *SAID], None)
    for last in late(), down(), refused(final=True):
        there.models["c"].scripts = ([last],)
        parts, error = await ask(router)
        assert error is not None
        assert (parts, list(error.charged)) == ([], ["a/model", "c/model"] if last.taken else ["a/model"])


async def test_nobody_else_is_asked_once_something_was_shown() -> None:
    there = Providers(a=["Hi ", down()], b=HI)
    parts, error = await ask(there.router(A, fallbacks=(B,)))
    assert parts == [TextDelta("Hi ")]
    assert error is not None
    assert error.code == "upstream_unreachable"
    assert there.asked("b") == []


async def test_text_that_is_refused_is_shown_to_nobody_else() -> None:
    there = Providers(a=[refused(final=True)], b=HI)
    parts, error = await ask(there.router(A, fallbacks=(B,)))
    assert parts == []
    assert error is not None
    assert error.final
    assert there.asked("b") == []


async def test_refused_text_is_the_failure_though_others_were_down() -> None:
    refusal = refused(final=True)
    there = Providers(a=[down()], b=[refusal], c=HI)
    assert await ask(there.router(A, fallbacks=(B, C))) == ([], refusal)
    assert there.asked("c") == []


async def test_model_is_asked_once_though_it_stands_in_the_chain() -> None:
    there = Providers(a=[down()], b=[refused()])
    await ask(there.router(A, B, fallbacks=(A, B)), asking("b/model"))
    assert [there.asked(name) for name in "ab"] == [["a-model"], ["b-model"]]


@pytest.mark.parametrize(
    ("failures", "which"),
    [
        ((refused(), down("upstream_timeout"), refused()), 1),
        ((down("upstream_rate_limited", 60), down("upstream_rate_limited", 3), down("upstream_rate_limited", 9)), 1),
        ((down("upstream_rate_limited", 1), down(), down("upstream_timeout")), 1),
        ((ModelError("upstream_auth", "No.", retryable=False), refused(), refused()), 0),
    ],
)
async def test_failure_of_all_is_the_one_that_asks_for_the_least_patience(
    failures: tuple[ModelError, ModelError, ModelError], which: int
) -> None:
    there = Providers(a=[failures[0]], b=[failures[1]], c=[failures[2]])
    assert await ask(there.router(A, fallbacks=(B, C))) == ([], failures[which])


@pytest.mark.parametrize("prefix", ["Oh. ", ""])
async def test_answer_that_goes_on_says_whose_it_is_if_another_has_spoken(prefix: str) -> None:
    there = Providers(a=HI, b=HI)
    goes_on = replace(asking("a/model", prefix), speaker="a/model")
    assert await ask(there.router(A, fallbacks=(B,)), goes_on) == (SAID, None)
    for fallbacks in (B,), ():  # the settings may have changed since
        parts, _ = await ask(there.router(A, fallbacks=fallbacks), replace(goes_on, speaker="b/model"))
        assert parts == [ModelSelected("a/model", "requested"), *SAID]


async def test_dead_provider_is_not_asked_until_its_pause_is_over() -> None:
    there = Providers(a=[down()], b=HI)
    router = there.router(A, OTHER_A, fallbacks=(B,))
    for number in range(FAILURES + 10):
        model = ("a/model", "a/other")[number % 2]  # the provider is dead and not the model
        parts, error = await ask(router, asking(model))
        assert error is None
    assert parts[0] == ModelSelected("b/model", "fallback", "upstream_unreachable")
    assert len(there.asked("a")) == FAILURES
    assert router.choices() == [
        Choice("a/model", "a", default=True, available=False, context_tokens=16_000),
        Choice("a/other", "a", default=False, available=False, context_tokens=16_000),
    ]
    there.models["a"].scripts = (HI,)
    there.now += FIRST_PAUSE
    assert await ask(router) == (SAID, None)
    assert [choice.available for choice in router.choices()] == [True, True]


async def test_alone_a_dead_provider_is_a_failure_that_says_when_to_ask_again() -> None:
    there = Providers(a=[down()])
    router = there.router(A)
    for _ in range(FAILURES):
        await ask(router)
    there.now += 2
    _, error = await ask(router)
    assert error is not None
    assert (error.code, error.transient, error.retry_after) == ("upstream_unreachable", True, FIRST_PAUSE - 2)
    assert len(there.asked("a")) == FAILURES


async def test_provider_that_refuses_is_alive() -> None:
    there = Providers(a=[refused()])
    router = there.router(A)
    for _ in range(FAILURES * 2):
        await ask(router)
    assert len(there.asked("a")) == FAILURES * 2


async def test_reader_who_leaves_a_trial_lets_the_next_one_try() -> None:
    there = Providers(a=[down()])
    router = there.router(A)
    for _ in range(FAILURES):
        await ask(router)
    there.now += FIRST_PAUSE
    there.models["a"].scripts = ([asyncio.Event()],)
    reader = asyncio.create_task(ask(router))
    asked = await there.models["a"].asked(FAILURES)
    reader.cancel()
    await soon(asyncio.wait({reader}))
    assert asked.closed.is_set()
    there.models["a"].scripts = (HI,)
    assert await ask(router) == (SAID, None)


async def test_closing_the_stream_closes_the_models() -> None:
    there = Providers(a=["Hi ", asyncio.Event()])
    stream = there.router(A).stream(asking())
    await stream.aclose()  # before anybody was asked
    async with aclosing(there.router(A).stream(asking())) as reads:
        assert await soon(anext(reads)) == [TextDelta("Hi ")]
        [asked] = there.models["a"].requests
        assert not asked.closed.is_set()
    assert asked.closed.is_set()


async def test_model_that_says_nothing_at_all_ends_the_stream() -> None:
    assert await ask(Providers(a=[]).router(A)) == ([], None)


async def test_model_that_is_there_already_is_the_only_one() -> None:
    model = ScriptedModel(HI)
    router = Router.alone(model)
    assert router.name == "scripted"
    assert router.choices() == [Choice("scripted", "scripted", default=True, available=True, context_tokens=16_000)]
    assert (router.offers("scripted"), router.offers("echo")) == (True, False)
    assert await ask(router, asking("scripted")) == (SAID, None)
    await router.close()
    assert model.closed


# --- budgets, and what is made beside the answers

SMALLER = Budgets(16_000, {"b/model": 25})
"""B has 100 bytes."""

LONG_TALK = [Turn("system", "Be kind"), Turn("user", "x" * 50), Turn("assistant", "y" * 50), Turn("user", "Well?")]


def talked(there: Providers, provider: str) -> list[str]:
    return [turn.content for turn in there.models[provider].requests[-1].request.messages]


async def test_fallback_with_a_smaller_window_is_sent_what_fits_it() -> None:
    there = Providers(a=[down()], b=HI)
    router = Router([A], [B], there.connect, budgets=SMALLER)
    await ask(router, ModelRequest(LONG_TALK, model="a/model"))
    assert talked(there, "a") == [turn.content for turn in LONG_TALK]
    assert talked(there, "b") == ["Be kind", "Well?"]


async def test_fallback_with_a_larger_window_is_sent_the_same() -> None:
    there = Providers(a=HI, b=[down()])
    router = Router([B], [A], there.connect, budgets=SMALLER)
    await ask(router, ModelRequest(LONG_TALK, model="b/model"))
    assert talked(there, "a") == talked(there, "b") == [turn.content for turn in LONG_TALK]


async def test_choices_tell_how_much_each_is_sent() -> None:
    router = Router([A, B], [], Providers(a=HI).connect, budgets=SMALLER)
    assert [choice.context_tokens for choice in router.choices()] == [16_000, 25]


async def test_model_for_summaries_is_asked_and_not_offered() -> None:
    there = Providers(a=HI, b=HI)
    router = Router([A], [], there.connect, others=[B])
    assert await ask(router, ModelRequest([], model="b/model", kind=RunKind.SUMMARY)) == (SAID, None)
    assert there.asked("b") == ["b-model"]
    assert not router.offers("b/model")


async def test_summaries_that_fail_cost_no_answer() -> None:
    there = Providers(a=[down()])
    router = there.router(A)
    for _ in range(FAILURES + 1):
        _, error = await ask(router, ModelRequest([], model="a/model", kind=RunKind.SUMMARY))
        assert error is not None
    assert router.choices()[0].available
    assert len(there.asked("a")) == FAILURES + 1


async def test_summary_is_not_the_trial_that_decides_whether_a_provider_is_back() -> None:
    there = Providers(a=[down()])
    router = there.router(A)
    for _ in range(FAILURES):
        await ask(router)
    there.now += FIRST_PAUSE
    _, error = await ask(router, ModelRequest([], model="a/model", kind=RunKind.SUMMARY))
    assert error is not None
    assert error.code == "upstream_unreachable"
    assert len(there.asked("a")) == FAILURES
    there.models["a"].scripts = (HI,)
    assert await ask(router) == (SAID, None)
