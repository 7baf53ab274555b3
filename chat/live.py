"""The runs that are followed or generated here, as they stand in memory."""

import asyncio
import time
from collections.abc import Callable, Sequence

from chat.commits import Batch
from chat.errors import ChatError
from chat.events import Event, ReasoningDelta, Source, TextDelta, ToolCalled, ToolDelta, ToolFinished, ends
from chat.ports import Store
from chat.runs import Run
from chat.spending import Said, Spending
from chat.tracing import NO_SPAN, RunSpan
from chat.usage import Share

LOAD_EVENTS = 4_096
"""Events read from the store at once when a run comes into this process's memory."""

FOLLOW_EVENTS = 512
"""Events handed to a follower at once. Between two such pages the loop serves others: a replay to a client that has
gone never waits for its socket."""

FOLLOW_CHARS = 65_536
"""The same in characters of text: what a follower that stalls keeps in memory, and not a whole answer."""

PAUSE_PER_FOLLOWER = 80e-6
"""Seconds that a run's followers rest between two looks, for each of them: to wake one costs a fifth of that. A
thousand followers of one run get what it says every 80 ms, many tokens in one frame's cost."""

LONGEST_PAUSE = 0.5
"""Seconds that a crowd rests at most, however large it is."""

NO_PAUSE = 0.005
"""Seconds; a shorter rest is none: the journal's own window is as long."""


class LiveRun:
    """A run that is going: what of it is committed, in memory, and who waits for more.

    ``events`` are visible: committed by this process, or read from the journal of another. ``closed`` means that
    no more will become visible here, be it that the run has ended or that it goes on elsewhere. ``trouble`` is set
    while its log cannot be written. ``whole`` is False while ``events`` may lack what an earlier owner committed.
    ``began`` is when it came here, by the monotonic clock. ``sent`` are the bytes of the
    conversation that the model was asked with. ``shares`` of what it used are set at its end.
    """

    def __init__(self, run: Run, *, owned: bool) -> None:
        self.run = run
        self.owned = owned
        self.events: list[Event] = []
        self.closed = False
        self.whole = True
        self.began = time.monotonic()
        self.spending = Spending()
        self.span: RunSpan = NO_SPAN
        self.sent = 0
        self.sources: list[Source] = []
        """With what still waits for the committer."""
        self.shares: Sequence[Share] = ()
        self.trouble: ChatError | None = None
        self.followers = 0
        self.pending: list[Event] = []
        self.queued = 0
        """Events that this process has queued for the run, those that are committed included."""
        self.ended: asyncio.Future[bool] | None = None
        self.on_trouble: Callable[[], object] = lambda: None
        """Called when nothing more can be appended: a model that is silent would not notice."""
        self._answer: list[str] = []
        self._reasoning: list[str] = []
        self._arguments: list[str] = []
        self._lookouts: set[Callable[[], object]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._page: Batch | None = None
        self._asked = (0, 0)

    @property
    def answer(self) -> str:
        """The joined text deltas, those that still wait for the committer included."""
        return "".join(self._answer)

    @property
    def said(self) -> Said:
        """With what still waits for the committer."""
        return Said(self.answer, "".join(self._reasoning), "".join(self._arguments))

    def feed(self, first_seq: int, events: Sequence[Event]) -> bool:
        """Make committed events visible, those that are not yet; False if some before them are missing."""
        known = len(self.events)
        if first_seq > known + 1:
            return False
        fresh = events[known + 1 - first_seq :]
        if fresh:
            self._answer += [event.text for event in fresh if isinstance(event, TextDelta)]
            self._reasoning += [event.text for event in fresh if isinstance(event, ReasoningDelta)]
            self._arguments += [event.text for event in fresh if isinstance(event, ToolDelta)]
            self.sources += [event for event in fresh if isinstance(event, Source)]
            self.publish(fresh)
        return True

    def queue(self, event: Event) -> None:
        """Let the event wait for the committer."""
        if isinstance(event, TextDelta):
            self._answer.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolDelta):
            self._arguments.append(event.text)
        elif isinstance(event, Source):
            self.sources.append(event)
        self.pending.append(event)
        self.queued += 1

    def publish(self, events: Sequence[Event]) -> None:
        """Make events visible that are committed, and wake the followers."""
        self.events.extend(events)
        if ends(events[-1]):
            self.closed = True
        self._wake_crowd()

    def close(self) -> None:
        """End the followers' streams without an end of the run."""
        self.closed = True
        self.wake()

    def lose(self) -> None:
        """The run is another process's from now on: refuse what the model still says, send the followers there."""
        self.owned = False
        self.closed = True
        self.fail(ChatError("run_taken", "Another process has taken this run over."))

    def fail(self, trouble: ChatError) -> None:
        """Nothing can be appended: tell the followers and whoever generates."""
        self.trouble = trouble
        self.wake()
        self.on_trouble()

    def wake(self) -> None:
        """Make every follower look again."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for look in self._lookouts:
            look()

    def look_out(self, look: Callable[[], object]) -> None:
        """Have ``look`` called at every :meth:`wake`, until :meth:`overlook`."""
        self._lookouts.add(look)

    def overlook(self, look: Callable[[], object]) -> None:
        self._lookouts.discard(look)

    def page(self, after: int) -> Batch:
        """The visible events behind ``after``, as many as a follower is handed at once.

        The same object for all who ask for the same: what one follower makes of it serves the others.
        """
        asked = (after, len(self.events))
        if self._page is None or self._asked != asked:
            self._asked, self._page = asked, Batch(after + 1, _page(self.events, after))
        return self._page

    def _wake_crowd(self) -> None:
        """Wake the followers, a crowd of them only so often: what has piled up goes out as one frame's cost."""
        pause = min(self.followers * PAUSE_PER_FOLLOWER, LONGEST_PAUSE)
        if pause < NO_PAUSE:
            self.wake()
        elif self._rest is None:
            self._rest = asyncio.get_running_loop().call_later(pause, self.wake)


def _page(events: Sequence[Event], after: int) -> Sequence[Event]:
    page, room = events[after : after + FOLLOW_EVENTS], FOLLOW_CHARS
    if len(page) == 1:  # who keeps up gets one at a time
        return page
    for count, event in enumerate(page, 1):
        room -= _length(event)
        if room <= 0:
            return page[:count]
    return page


def _length(event: Event) -> int:
    match event:
        case TextDelta(text) | ReasoningDelta(text) | ToolDelta(_, text):
            return len(text)
        case ToolCalled(_, _, arguments):
            return len(arguments)
        case ToolFinished(_, result, error):
            return len(result or error or "")
        case Source():
            return len(event.url or "") + len(event.text or "")
        case _:
            return 0


class LiveRuns:
    """All of them: the own runs, and those of other processes as long as somebody here follows them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[str, LiveRun] = {}
        self._position: int | None = None
        self._due: list[Callable[[], object]] = []

    @property
    def foreign(self) -> bool:
        """Whether other processes' runs are followed here."""
        return any(not live.owned for live in self._runs.values())

    def call_soon(self, look: Callable[[], object]) -> None:
        """Call it in the loop's next turn. One call of the loop serves all whom a commit has woken."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._call_due)
        self._due.append(look)

    def _call_due(self) -> None:
        due, self._due = self._due, []
        for look in due:
            look()

    def own(self, run: Run) -> LiveRun:
        """Hold a run that this process has just started or taken over."""
        live = self._runs.get(run.id)
        if live is None or live.owned or live.closed:
            if live is not None and live.owned:  # this process was thought dead, and takes its own run over
                live.lose()
            live = self._runs[run.id] = LiveRun(run, owned=True)
        live.run, live.owned, live.whole = run, True, run.epoch == 1
        return live

    def owned(self, run_id: str) -> LiveRun | None:
        live = self._runs.get(run_id)
        return live if live is not None and live.owned else None

    async def join(self, run_id: str) -> LiveRun | None:
        """Become a follower of the run; None if it has ended and is to be read from the store.

        Raises:
            ChatError: ``not_found``.
        """
        live = self._runs.get(run_id)
        if live is None:
            run = await self._store.run(run_id)
            if run is None:
                raise ChatError("not_found", "There is no such run.")
            if not run.status.active:
                return None
            if self._position is None:  # before the first read, or what is committed in between would be missed
                position = await self._store.position()
                if self._position is None:  # of two that join at once, the first one's lies before both reads
                    self._position = position
            live = self._runs.setdefault(run_id, LiveRun(run, owned=False))
            live.followers += 1
            try:
                if not live.owned:
                    await self.load(live)
            except BaseException:
                self.leave(live)
                raise
        else:
            live.followers += 1
        return live

    def leave(self, live: LiveRun) -> None:
        """Stop being a follower; a foreign run that nobody follows is dropped."""
        live.followers -= 1
        if not live.followers and not live.owned:
            self.drop(live)

    def drop(self, live: LiveRun) -> None:
        if self._runs.get(live.run.id) is live:
            del self._runs[live.run.id]

    async def load(self, live: LiveRun) -> None:
        """Read what of the run is committed and not yet in memory; close it if its log is folded already.

        Not up to where there is nothing any more: a model that says more than one thing a read would never let it end.
        What is committed from the last read on comes with the :meth:`tail`, which begins before the first.
        """
        owned = live.owned
        while True:
            try:
                batch = await self._store.events(live.run.id, len(live.events), LOAD_EVENTS)
            except ChatError as error:
                if error.code != "cursor_expired":
                    raise
                return live.close()
            if live.owned is not owned:
                return None  # taken over meanwhile: whoever generates it loads it, and shows what it commits itself
            if batch.events and not live.feed(batch.first_seq, batch.events):
                return live.close()
            if batch.last or not batch.events:
                live.whole = True
                return None

    async def tail(self) -> bool:
        """Read on in the journal, once for all followers of other processes' runs; True if there may be more."""
        if not self.foreign or self._position is None:
            self._position = None
            return False
        asked = {run_id for run_id, live in self._runs.items() if not live.owned}
        tail = await self._store.tail(self._position, asked)
        # What joined meanwhile was read up to some position of its own, which may lie before the tail's.
        behind = {
            live for run_id, live in self._runs.items() if not (live.owned or (tail.complete and run_id in asked))
        }
        for run_id, seq, event in tail.entries:
            live = self._runs.get(run_id)
            if live is not None and not live.owned and not live.feed(seq, (event,)):
                behind.add(live)
        for live in behind:
            await self.load(live)
        self._position = tail.pos  # not before: what fails is read again
        return tail.more

    def lose_all_but(self, owner: int) -> None:
        """Lose the runs that this process had as another owner: declared dead, it would not notice as long as their
        models are silent.
        """
        for live in [live for live in self._runs.values() if live.owned and live.run.owner != owner]:
            live.lose()

    def send_away(self) -> None:
        """End the streams of other processes' runs, and forget these: what they commit cannot be seen from here."""
        for live in [live for live in self._runs.values() if not live.owned]:
            live.close()
            self.drop(live)

    def close(self) -> None:
        """End every follower's stream without an end of the run."""
        for live in self._runs.values():
            live.close()
