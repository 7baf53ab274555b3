"""Which MCP servers there are: a file in the format that every MCP client reads, and some keys of ours."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import from_json

from chat.tools import TIMEOUT
from mcp_tools.names import prefix_of

_PLACEHOLDER = re.compile(r"\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}")
"""``${NAME}`` and ``${NAME:-default}``, as in the shell."""

_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t -~]*")


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("has a NUL in it")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
"""What can be an argument or a variable of a process."""


class ServerConfig(BaseModel):
    """One server, started here (``command``) or reached by streamable HTTP (``url``).

    ``approval``: whose calls wait for somebody's yes: of all its tools, or of those that are named. ``tools``: the only
    ones that the model gets to know, by the server's names. ``timeout``: seconds that a call may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    name: str
    type: Literal["stdio", "http", "streamable-http", "streamableHttp"] | None = None
    command: Annotated[str, Field(min_length=1), AfterValidator(_no_nul)] | None = None
    args: Sequence[Text] = Field((), repr=False)
    env: Mapping[Text, Text] = Field({}, repr=False)
    cwd: Text | None = None
    url: str | None = Field(None, repr=False)
    headers: Mapping[str, str] = Field({}, repr=False)
    approval: StrictBool | frozenset[str] = False
    tools: frozenset[str] | None = None
    timeout: float = Field(TIMEOUT, gt=0)
    disabled: StrictBool = False

    @field_validator("url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+\S*", value):
            raise ValueError("use http:// or https:// and a host")
        return value

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        """Said here and without the value: later the HTTP client would quote it, token and all."""
        for name, text in value.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                raise ValueError(f"{name!r} has characters that no header may have")
        return value

    @field_validator("approval", mode="before")
    @classmethod
    def _yes_no_or_some(cls, value: object) -> object:
        if not isinstance(value, bool | list):
            raise ValueError("use true, false or a list of tools")
        return value

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        local, remote = self.command is not None, self.url is not None
        if local == remote:
            raise ValueError("give it either a command or a url")
        foreign = {"url", "headers"} if local else {"command", "args", "env", "cwd"}
        if wrong := sorted(foreign & self.model_fields_set):
            raise ValueError(f"{wrong[0]} does not go with {'command' if local else 'url'}")
        if self.type is not None and local != (self.type == "stdio"):
            raise ValueError(f"type {self.type} does not go with {'command' if local else 'url'}")
        return self

    @property
    def prefix(self) -> str:
        return prefix_of(self.name)


def load_servers(path: Path, environment: Mapping[str, str]) -> list[ServerConfig]:
    """The servers of the file, without those that are disabled, placeholders filled in from the environment.

    Raises:
        ValueError: it cannot be read, or something in it is wrong; what, in one line that quotes no value.
    """
    try:
        content = from_json(path.read_bytes(), allow_inf_nan=False)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    listed = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(listed, dict):
        raise ValueError(f'{path} has no object "mcpServers"')
    servers = [_server(name, given, environment) for name, given in listed.items() if not _disabled(given)]
    names: dict[str, str] = {}
    for server in servers:
        if (other := names.setdefault(server.prefix, server.name)) != server.name:
            raise ValueError(f"the tools of {other} and {server.name} would have the same names: {server.prefix}__...")
    return servers


def _disabled(given: object) -> bool:
    """Nothing else about such a server has to be right, as it is in the clients that know this key."""
    return isinstance(given, dict) and given.get("disabled") is True


def _server(name: str, given: object, environment: Mapping[str, str]) -> ServerConfig:
    if not isinstance(given, dict):
        raise ValueError(f"{name} is not an object")
    if "name" in given:
        raise ValueError(f"{name}.name: Extra inputs are not permitted")
    try:
        filled = {key: _filled(value, f"{name}.{key}", environment) for key, value in given.items()}
        return ServerConfig.model_validate({**filled, "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join([name, *(str(step) for step in first["loc"])])
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _filled(value: object, where: str, environment: Mapping[str, str]) -> object:
    """The value, in whose strings stands what the placeholders stand for."""

    def fill(match: re.Match[str]) -> str:
        found = environment.get(match["name"]) or match["default"]
        if found is None:
            raise ValueError(f"{where}: {match[0]} is not set")
        return found

    match value:
        case str():
            return _PLACEHOLDER.sub(fill, value)
        case list():
            return [_filled(item, f"{where}.{index}", environment) for index, item in enumerate(value)]
        case dict():
            return {key: _filled(item, f"{where}.{key}", environment) for key, item in value.items()}
        case _:
            return value
