"""What a client may say about how its message is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model gets to know it. ``parameters`` is a JSON schema of an object.

    ``strict``: the upstream is to hold the model to that schema, if it can.
    """

    name: str
    description: str
    parameters: Mapping[str, object]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """``instructions`` is a system message of the client's.

    ``tools`` are those that it runs itself: a run that calls one ends there, and the client brings what came of it
    along with its next request. ``options`` go to the model as they are, such as a temperature. ``labels`` are for the
    client alone, which wants to be told them again with the answer. ``collection`` is that of the documents that the
    answer is taken from: the session's, which the store fills in.
    """

    instructions: str | None = None
    tools: Sequence[ToolSpec] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)
    collection: str | None = None


NO_TERMS = Terms()
