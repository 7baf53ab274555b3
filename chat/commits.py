"""What the store is given, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chat.events import Event, Source, Terminal
from chat.runs import Run, RunKind
from chat.sessions import Piece
from chat.steps import Step
from chat.usage import Share


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a run: its terminal event, the whole answer, and the whole log for the run's own storage.

    The answer becomes a message; of any other kind of run, what it wrote is kept with the session if it is complete.
    ``steps`` are those in which tools were called. ``shares`` are what the terminal event's usage is the sum of.
    ``sources`` are the answer's.
    """

    terminal: Terminal
    answer: str
    log: Sequence[Event]
    steps: Sequence[Step] = ()
    shares: Sequence[Share] = ()
    sources: Sequence[Source] = ()


@dataclass(slots=True)
class Append:
    """Events for the end of one run's log; ``first_seq`` is the first one's place. ``durable``: they have to survive
    power loss, and not just a kill.

    This and :class:`Batch` are not frozen, though nobody changes them: one is made for each token, and that costs a
    frozen one four times as much.
    """

    run: Run
    first_seq: int
    events: Sequence[Event]
    settlement: Settlement | None = None
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit brought to light: runs that are gone or not ours any more, sessions in which others wait."""

    lost: frozenset[str] = frozenset()
    waiting: bool = False


@dataclass(slots=True)
class Batch:
    """Neighbouring events of one run; ``first_seq`` is the first one's place.

    ``last``: when they were read there was nothing behind them. ``shown`` is room for those who show the batch to many:
    what they made of it, by their own key.
    """

    first_seq: int
    events: Sequence[Event]
    last: bool = field(default=False, compare=False, repr=False)
    shown: dict[object, bytes] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tries:
    """A session's runs of one kind, beside the conversation.

    ``last`` is the latest, ``active`` if it has not ended. ``kept``: one of them has brought something. ``failures``
    in a row are those behind it that have not, and ``answers`` are the runs that answer since the latest.
    """

    last: str | None = None
    active: bool = False
    kept: bool = False
    failures: int = 0
    answers: int = 0


@dataclass(frozen=True, slots=True)
class Recollection:
    """What there is of a session's memory. ``pieces`` are the branch behind the summary that holds for it, oldest
    first; of one without a summary, as far as was asked for. ``instructions`` are the bytes of those that the
    answer's run had.
    """

    title: str | None
    instructions: int
    tries: Mapping[RunKind, Tries]
    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Tail:
    """What was committed of some runs behind a position of the journal: run, seq and event, in commit order.

    ``pos`` is how far that goes, whoever's the last entry there is; ``more``, if there may be more behind it.
    ``complete`` is False when part of it has been pruned already: whoever follows must read the runs themselves.
    """

    pos: int
    entries: Sequence[tuple[str, int, Event]]
    complete: bool = True
    more: bool = False
