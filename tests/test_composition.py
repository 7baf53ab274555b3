"""What the settings become."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chat.context import Budgets
from chat.engine import Timing
from chat.events import TextDelta
from chat.memory import MemoryPolicy
from chat.model import OpenAIEmbedder, OpenAIModel
from chat.policy import CrashRecovery, Policy
from chat.ports import ModelRequest
from chat.routing import Choice
from chat.usage import Price
from composition import budgets_of, embedder_of, memory_of, model_of, policy_of, prices_of, timing_of, tools_of
from settings import load_settings
from tests.asking import HELLO, ask
from tests.serving import settings_in
from tests.upstream import Upstream, completion

pytestmark = pytest.mark.usefixtures("bare")


def test_tools_that_are_not_there_end_the_start_with_one_line() -> None:
    with pytest.raises(SystemExit) as caught:
        tools_of(load_settings(["--tools", "examples.town_hall, nowhere.tools"]))
    assert str(caught.value) == "Wrong setting: TOOLS: nowhere.tools cannot be imported: No module named 'nowhere'"


def test_tools_bring_a_prompt_for_where_none_is_set() -> None:
    tools = tools_of(load_settings(["--tools", "examples.town_hall"]))
    assert policy_of(load_settings([]), prompt=tools.prompt).system_prompt == tools.prompt
    assert policy_of(load_settings(["--system-prompt", "Mine."]), prompt=tools.prompt).system_prompt == "Mine."


def test_password_in_the_models_address_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "parley")
    settings = settings_in(tmp_path, base_url="https://ann:sesame@models.example.org/v1")
    model_of(settings)
    assert "https://***@models.example.org/v1" in caplog.text
    assert "sesame" not in caplog.text + repr(settings)


async def test_embedder_is_there_where_its_model_is_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "parley")
    assert embedder_of(settings_in(tmp_path)) is None
    given = {"embedding_model": "bge", "embedding_base_url": "https://ann:sesame@e.example.org/v1"}
    names = []
    for more in ({}, {"embedding_dimensions": 256}):
        embedder = embedder_of(settings_in(tmp_path, **given, **more))
        assert isinstance(embedder, OpenAIEmbedder)
        names.append(embedder.name)
        await embedder.close()
    assert names == ["bge", "bge, 256 dimensions"]  # which are not compared with each other
    assert "Embeddings: bge at https://***@e.example.org/v1" in caplog.text
    assert "sesame" not in caplog.text


def test_budgets_are_as_set(tmp_path: Path) -> None:
    given = {"context_tokens": 1, "model_context_tokens": '{"gpt": 9}', "fallback_models": "echo"}
    assert budgets_of(settings_in(tmp_path, **given)) == Budgets(1, {"gpt": 9}, ("echo",))
    assert budgets_of(settings_in(tmp_path)) == Budgets()


def test_memory_is_as_set(tmp_path: Path) -> None:
    assert memory_of(settings_in(tmp_path)) == MemoryPolicy(summaries=True)
    settings = settings_in(tmp_path, summaries=False, titles=True, summary_model="ollama/a", title_model="echo")
    assert memory_of(settings) == MemoryPolicy(titles=True, summary_model="ollama/a", title_model="echo")
    assert [target.id for target in settings.memorisers] == ["ollama/a", "echo"]
    router = model_of(settings)
    assert [choice.id for choice in router.choices()] == ["echo"]
    assert router._known.keys() == {"echo", "ollama/a"}


def test_policy_and_timing_are_as_set(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, system_prompt="Be kind", context_tokens=1, model_retries=3, max_answer_chars=4,
        crash_recovery="interrupt", lease_seconds=5, event_retention=6,
    )  # fmt: skip
    assert policy_of(settings) == Policy(
        "Be kind", Budgets(1), 3, answer_limit=4, crash_recovery=CrashRecovery.INTERRUPT
    )
    assert timing_of(settings) == Timing(lease=5, retention=6)
    assert policy_of(settings_in(tmp_path)) == Policy()
    assert timing_of(settings_in(tmp_path)) == Timing()


def test_prices_are_exact_and_cached_input_costs_as_all_input_if_nothing_is_said() -> None:
    given = '{"a": {"input": 0.15, "cached": 0.075, "output": 0.6}, "b": {"input": 3, "output": 15}}'
    prices = prices_of(load_settings(["--prices", given]))
    assert prices == {
        "a": Price(Decimal("0.15"), Decimal("0.6"), cached=Decimal("0.075")),
        "b": Price(Decimal(3), Decimal(15), cached=Decimal(3)),
    }
    assert prices_of(load_settings([])) == {}


@pytest.mark.parametrize(
    ("given", "name", "base_url", "key"),
    [
        ({"openai_api_key": "k"}, "gpt-4o-mini", "https://api.openai.com/v1", "k"),
        ({"openai_api_key": "k", "model_name": "gpt-x"}, "gpt-x", "https://api.openai.com/v1", "k"),
        ({"base_url": "http://localhost:1/v1"}, "gpt-4o-mini", "http://localhost:1/v1", "none"),
        ({"base_url": "http://localhost:1/v1", "grok_api_key": "g"}, "gpt-4o-mini", "http://localhost:1/v1", "none"),
        ({"grok_api_key": "g"}, "grok-3-mini-latest", "https://api.x.ai/v1", "g"),
        ({"grok_api_key": "g", "grok_model": "grok-x"}, "grok-x", "https://api.x.ai/v1", "g"),
        ({"grok_api_key": "g", "openai_api_key": "k"}, "gpt-4o-mini", "https://api.openai.com/v1", "k"),
    ],
)
def test_key_or_endpoint_makes_the_model_a_real_one(
    tmp_path: Path, given: dict[str, Any], name: str, base_url: str, key: str
) -> None:
    settings = settings_in(tmp_path, **given)
    [model] = settings.offered
    assert (model.id, model.base_url, model.api_key) == (name, base_url, key)
    assert model_of(settings).name == name


@pytest.mark.parametrize(
    "given", [{}, {"model_name": "gpt-x"}, {"model_name": "echo", "openai_api_key": "k", "grok_api_key": "g"}]
)
async def test_without_key_and_endpoint_or_by_its_name_the_model_is_echo(tmp_path: Path, given: dict[str, Any]) -> None:
    router = model_of(settings_in(tmp_path, stream_delay=0, **given))
    assert router.choices() == [Choice("echo", "echo", default=True, available=True, context_tokens=16_000)]
    parts, _ = await ask(router)
    assert parts[:1] == [TextDelta("secret ")]


def test_models_are_offered_and_fall_back_as_set(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, base_url="http://here/v1", model_name="groq/x", groq_api_key="g",
        allowed_models="echo, groq/y,groq/x,,echo", fallback_models="groq/x,ollama/m",
    )  # fmt: skip
    assert [target.id for target in settings.offered] == ["groq/x", "echo", "groq/y"]
    assert settings.default_model.provider == "custom"
    assert [(target.id, target.provider) for target in settings.fallbacks] == [
        ("groq/x", "custom"),
        ("ollama/m", "ollama"),
    ]


async def test_provider_is_asked_as_set(tmp_path: Path) -> None:
    async with Upstream(completion("Hi")) as upstream:
        router = model_of(
            settings_in(
                tmp_path,
                model_name="vllm/a/b",
                vllm_base_url=upstream.base_url,
                vllm_api_key="v",
                connect_timeout=3,
                request_timeout=4,
                first_token_timeout=50,
            )
        )
        assert (await ask(router, ModelRequest(HELLO.messages, model="vllm/a/b")))[1] is None
        client = router._clients["vllm"]
        await router.close()
        [request] = upstream.requests
    assert (request.body["model"], request.headers["authorization"]) == ("a/b", "Bearer v")
    assert isinstance(client, OpenAIModel)
    assert (client.name, client._first_timeout, client._silence_timeout) == ("vllm", 50, 4)
    assert client._client.timeout == httpx2.Timeout(None, connect=3, pool=3)
