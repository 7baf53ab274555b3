"""A session is one conversation: a tree of messages with one branch that is spoken to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

from chat.events import Source
from chat.prompts import Variables
from chat.steps import Step

T = TypeVar("T")

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Session:
    """``leaf_id`` is the last message of the branch that the next message continues.

    ``touched`` grows with every activity; lists are ordered by it, so that a clock that jumps cannot mix them up.
    ``template`` and its ``variables`` are the prompt of chats that name none. ``collection`` is that of the documents
    that answers are taken from.
    """

    id: str
    user_id: str
    title: str | None
    metadata: Mapping[str, object]
    leaf_id: str | None
    message_count: int
    created_at: int
    updated_at: int
    touched: int
    template: str | None = None
    variables: Variables = field(default_factory=dict)
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One committed entry of the history. ``status`` is the run's for an assistant's message, else ``completed``.

    ``steps`` are those of an answer in which tools were called; ``content`` is the text of all of them. ``sources``
    are what an answer is from.
    """

    id: str
    session_id: str
    parent_id: str | None
    role: Role
    content: str
    status: str
    run_id: str | None
    created_at: int
    steps: Sequence[Step] = ()
    sources: Sequence[Source] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A message as the model or a client gives it: no place yet. ``steps`` and ``sources`` as in :class:`Message`.

    ``id`` is the one by which a client knows it, where it says so: perhaps that of a message.
    """

    role: Role
    content: str
    steps: Sequence[Step] = ()
    id: str | None = None
    sources: Sequence[Source] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session keeps of its beginning. ``up_to`` is the last message that it tells of."""

    text: str
    up_to: str
    run_id: str
    model: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch as it is remembered: its latest summary, and the turns behind that, oldest first."""

    summary: Summary | None
    turns: Sequence[Turn]


@dataclass(frozen=True, slots=True)
class Piece:
    """A message's place in its branch; ``size`` is in bytes, as :func:`chat.context.fitted` counts them."""

    id: str
    role: Role
    size: int


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; ``next`` is the cursor of the page behind it, None on the last."""

    items: Sequence[T]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a client may say about a session it creates."""

    id: str
    user_id: str
    title: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    template: str | None = None
    variables: Variables = field(default_factory=dict)
    collection: str | None = None
