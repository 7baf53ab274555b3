"""Who serves models, and what a model's name means: ``provider/model``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ECHO = "echo"
"""The built-in model, and the name of who serves it."""

CUSTOM = "custom"
"""Whoever answers at BASE_URL."""

DEFAULT_MODEL = "gpt-4o-mini"

KEYLESS = "none"
"""The SDK insists on a key; a server that needs none ignores it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """An OpenAI-compatible API. ``variables`` hold its key: the first that is set; ``open`` works without one."""

    base_url: str
    variables: tuple[str, ...]
    open: bool = False


PRESETS: Mapping[str, Preset] = {
    "openai": Preset("https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "xai": Preset("https://api.x.ai/v1", ("XAI_API_KEY", "GROK_API_KEY")),
    "anthropic": Preset("https://api.anthropic.com/v1/", ("ANTHROPIC_API_KEY",)),
    "gemini": Preset("https://generativelanguage.googleapis.com/v1beta/openai/", ("GEMINI_API_KEY",)),
    "groq": Preset("https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    "mistral": Preset("https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
    "deepseek": Preset("https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",)),
    "openrouter": Preset("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "ollama": Preset("http://localhost:11434/v1", (), open=True),
    "vllm": Preset("http://localhost:8000/v1", ("VLLM_API_KEY",), open=True),
}
"""By the first segment of a model's name."""


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What goes into a history for members that a server wants to have back of its own answers, and that are not kept.

    ``message`` are members of each message of the assistant, ``call`` those of each call in it.
    """

    message: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, object] = field(default_factory=dict)


NO_PLACEHOLDERS = Placeholders()

PLACEHOLDERS: Mapping[str, Placeholders] = {
    # From V3.2 on, where tools were called: "Missing `reasoning_content` field in the assistant message". V4 takes none
    # that is empty. https://api-docs.deepseek.com/guides/thinking_mode
    "api.deepseek.com": Placeholders(message={"reasoning_content": " "}),
    # From Gemini 3 on: "Function call is missing a thought_signature". Google's own way around it:
    # https://ai.google.dev/gemini-api/docs/thought-signatures
    "generativelanguage.googleapis.com": Placeholders(
        call={"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
    ),
}
"""By the host of those that answer 400 to a history without; others may refuse what they do not know."""


def placeholders(base_url: str) -> Placeholders:
    """What the server at ``base_url`` insists on."""
    host = base_url.partition("://")[2].partition("/")[0]
    return PLACEHOLDERS.get(host.lower(), NO_PLACEHOLDERS)


@dataclass(frozen=True, slots=True)
class Target:
    """A model, and where it is asked for.

    ``id`` is its name here, ``name`` its name there. The built-in model has no ``base_url``.
    """

    id: str
    provider: str
    name: str
    base_url: str = ""
    api_key: str = field(default=KEYLESS, repr=False)


@dataclass(frozen=True, slots=True)
class Directory:
    """Finds models by their names.

    ``keys`` and ``addresses`` are by variable (``GROQ_API_KEY``, ``OLLAMA_BASE_URL``), those that are set alone.
    """

    keys: Mapping[str, str] = field(repr=False)
    addresses: Mapping[str, str]

    def default(self, name: str | None, grok_model: str) -> Target:
        """The model that answers where none is asked for: a key or an address makes it a real one.

        While there is a BASE_URL, ``name`` is a name there, whatever it begins with.

        Raises:
            ValueError: as :meth:`find`.
        """
        if name == ECHO:
            return self.find(ECHO)
        if "BASE_URL" in self.addresses:
            name = name or DEFAULT_MODEL
            return self._at(CUSTOM, name, name.removeprefix(f"{CUSTOM}/"))
        if name is not None and _provider(name) is not None:
            return self.find(name)
        if "OPENAI_API_KEY" in self.keys:
            name = name or DEFAULT_MODEL
            return self._at("openai", name, name)
        if any(variable in self.keys for variable in PRESETS["xai"].variables):
            return self._at("xai", grok_model, grok_model)
        return self.find(ECHO)

    def find(self, name: str) -> Target:
        """The model of this name. One that begins with no provider is at BASE_URL, or else at OpenAI.

        Raises:
            ValueError: the variable that has to be set for it.
        """
        if name == ECHO:
            return Target(ECHO, ECHO, ECHO)
        provider = _provider(name)
        if provider is not None:
            return self._at(provider, name, name.removeprefix(f"{provider}/"))
        return self._at(CUSTOM if "BASE_URL" in self.addresses else "openai", name, name)

    def _at(self, provider: str, model_id: str, name: str) -> Target:
        if provider == CUSTOM:
            if "BASE_URL" not in self.addresses:
                raise ValueError(f"{model_id} needs BASE_URL")
            key = self.keys.get("OPENAI_API_KEY", KEYLESS)
            return Target(model_id, CUSTOM, name, self.addresses["BASE_URL"], key)
        preset = PRESETS[provider]
        key = next((self.keys[variable] for variable in preset.variables if variable in self.keys), KEYLESS)
        if key == KEYLESS and not preset.open:
            raise ValueError(f"{model_id} needs {' or '.join(preset.variables)}")
        base_url = self.addresses.get(f"{provider.upper()}_BASE_URL", preset.base_url)
        return Target(model_id, provider, name, base_url, key)


def _provider(name: str) -> str | None:
    """The provider that the name begins with; others that have slashes in their names are models of somebody's."""
    first, slash, rest = name.partition("/")
    return first if slash and rest and (first in PRESETS or first == CUSTOM) else None
