import pytest

from chat.providers import NO_PLACEHOLDERS, PLACEHOLDERS, PRESETS, Directory, Target, placeholders

KEYS = {variable: variable.lower() for preset in PRESETS.values() for variable in preset.variables}


def directory(*variables: str, base_url: str | None = None, **addresses: str) -> Directory:
    """With these keys set, each to its variable's name in lower case."""
    named = addresses if base_url is None else addresses | {"BASE_URL": base_url}
    return Directory({variable: KEYS[variable] for variable in variables}, named)


@pytest.mark.parametrize("provider", PRESETS)
def test_every_preset_has_its_address_and_its_key(provider: str) -> None:
    preset = PRESETS[provider]
    target = directory(*KEYS).find(f"{provider}/a/b")
    key = preset.variables[0].lower() if preset.variables else "none"
    assert target == Target(f"{provider}/a/b", provider, "a/b", preset.base_url, key)


@pytest.mark.parametrize("provider", [name for name, preset in PRESETS.items() if not preset.open])
def test_preset_without_its_key_says_which_variable_is_missing(provider: str) -> None:
    with pytest.raises(ValueError, match=f"^{provider}/a needs {PRESETS[provider].variables[0]}"):
        directory().find(f"{provider}/a")


def test_second_variable_counts_when_the_first_is_not_set() -> None:
    assert directory("GROK_API_KEY").find("xai/grok-4").api_key == "grok_api_key"
    with pytest.raises(ValueError, match="XAI_API_KEY or GROK_API_KEY"):
        directory().find("xai/grok-4")


def test_servers_of_ones_own_may_be_elsewhere_and_need_no_key() -> None:
    found = directory(OLLAMA_BASE_URL="http://gpu:1/v1").find("ollama/mistral")
    assert (found.base_url, found.api_key, found.name) == ("http://gpu:1/v1", "none", "mistral")
    assert directory().find("vllm/meta-llama/Llama-3").name == "meta-llama/Llama-3"


@pytest.mark.parametrize("name", ["gpt-4o", "meta-llama/Llama-3", "groq", "groq/", "/x", "GROQ/x"])
def test_name_that_begins_with_no_provider_is_at_the_default_endpoint(name: str) -> None:
    at = directory("OPENAI_API_KEY", base_url="http://here/v1").find(name)
    assert at == Target(name, "custom", name, "http://here/v1", "openai_api_key")
    assert directory("OPENAI_API_KEY").find(name).provider == "openai"
    with pytest.raises(ValueError, match="needs OPENAI_API_KEY"):
        directory().find(name)


def test_endpoint_of_ones_own_has_a_name_too() -> None:
    target = directory(base_url="http://here/v1").find("custom/openai/gpt-4o")
    assert target == Target("custom/openai/gpt-4o", "custom", "openai/gpt-4o", "http://here/v1", "none")
    with pytest.raises(ValueError, match="custom/x needs BASE_URL"):
        directory().find("custom/x")


def test_default_goes_to_the_endpoint_that_is_set_whatever_its_name_begins_with() -> None:
    known = directory("OPENAI_API_KEY", "GROQ_API_KEY", base_url="http://here/v1")
    target = known.default("openai/gpt-4o", "grok")
    assert target == Target("openai/gpt-4o", "custom", "openai/gpt-4o", "http://here/v1", "openai_api_key")
    assert known.default("custom/m", "grok") == Target("custom/m", "custom", "m", "http://here/v1", "openai_api_key")
    assert known.default(None, "grok").name == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        (None, [], ("echo", "echo")),
        ("gpt-x", [], ("echo", "echo")),
        ("echo", ["OPENAI_API_KEY"], ("echo", "echo")),
        (None, ["OPENAI_API_KEY", "GROK_API_KEY"], ("openai", "gpt-4o-mini")),
        ("gpt-x", ["OPENAI_API_KEY"], ("openai", "gpt-x")),
        (None, ["GROK_API_KEY"], ("xai", "grok")),
        ("gpt-x", ["XAI_API_KEY"], ("xai", "grok")),
        (None, ["GROQ_API_KEY"], ("echo", "echo")),
        ("groq/llama", ["GROQ_API_KEY", "OPENAI_API_KEY"], ("groq", "llama")),
        ("ollama/mistral", ["OPENAI_API_KEY"], ("ollama", "mistral")),
    ],
)
def test_default_follows_from_name_and_keys(name: str | None, keys: list[str], expected: tuple[str, str]) -> None:
    target = directory(*keys).default(name, "grok")
    assert (target.provider, target.name) == expected


def test_default_without_its_key_is_a_mistake_and_not_echo() -> None:
    with pytest.raises(ValueError, match="anthropic/claude needs ANTHROPIC_API_KEY"):
        directory("OPENAI_API_KEY").default("anthropic/claude", "grok")


def test_keys_are_not_shown() -> None:
    known = directory(*KEYS)
    assert "groq_api_key" not in f"{known!r} {known.find('groq/llama')!r}"


def test_those_that_insist_on_more_get_placeholders_and_no_others() -> None:
    found = {provider for provider, preset in PRESETS.items() if placeholders(preset.base_url) != NO_PLACEHOLDERS}
    assert found == {"deepseek", "gemini"}
    for host, wanted in PLACEHOLDERS.items():
        assert placeholders(f"https://{host.upper()}") == wanted
    for other in ("", "nonsense", "http://[", "https://proxy.example/api.deepseek.com/v1"):
        assert placeholders(other) == NO_PLACEHOLDERS
