"""What a model says, on its way into the journal."""

from collections.abc import Sequence

from chat.events import ModelSelected, ReasoningDelta, Source, TextDelta, ToolDelta, ToolStarted, Usage
from chat.journal import Journal
from chat.live import LiveRun
from chat.policy import OverLimitError, Policy
from chat.ports import Finished, Part
from chat.sources import admitted
from chat.spending import total_of
from chat.steps import Call
from chat.usage import tokens_in


class Hearing:
    """Hears one answer of the model, to a request of ``asked`` tokens.

    ``model`` is the one that speaks, where the log has to say so.

    Raises:
        OverLimitError: the request is too large by itself.
    """

    def __init__(self, journal: Journal, policy: Policy, live: LiveRun, asked: int) -> None:
        self.finished: Finished | None = None
        self.model: str | None = None
        self.written: dict[str, tuple[str, list[str]]] = {}
        """The calls' names and arguments so far."""
        self._journal = journal
        self._policy = policy
        self._live = live
        self._said = len(live.answer)
        self._room = self._room_behind("", asked)

    @property
    def calls(self) -> list[Call]:
        return [Call(call_id, name, "".join(texts)) for call_id, (name, texts) in self.written.items()]

    def hear(self, parts: Sequence[Part]) -> bool:
        """Take text; False if there is something else among it, or it is to be waited for or to be refused."""
        live, journal, room = self._live, self._journal, self._room
        texts = [part for part in parts if isinstance(part, TextDelta)]
        for part in texts:
            room -= len(part.text)
        if len(texts) < len(parts) or room < 0 or journal.full or live.trouble is not None:
            return False
        self._room = room
        for part in texts:
            journal.append(live, part)
        return True

    def take(self, parts: Sequence[Part]) -> None:
        """Take whatever it is.

        Raises:
            OverLimitError: it is too much.
            ChatError: the journal does not take the run's events any more.
        """
        live = self._live
        for part in parts:
            if isinstance(part, TextDelta):
                text = part.text
            elif isinstance(part, Finished):
                self.finished = part
                continue
            elif isinstance(part, Source):
                if (source := admitted(part, live.sources, self._said)) is not None:
                    self._journal.append(live, source)
                continue
            else:
                text = self._keep(part)
            self._room -= len(text)
            if self._room < 0:
                self._room = self._room_behind(text)
            self._journal.append(live, part)

    def _keep(self, part: ReasoningDelta | ToolStarted | ToolDelta | ModelSelected) -> str:
        """Keep what belongs to a call; the text that the part counts as."""
        match part:
            case ToolStarted(call_id, name):
                self.written[call_id] = (name, [])
                return ""
            case ToolDelta(call_id, text):
                self.written[call_id][1].append(text)
                return text
            case ReasoningDelta(text):
                return text
            case _:
                self.model = part.model
                self._live.spending.select(part)
                return ""

    def _room_behind(self, text: str, asked: int = 0) -> int:
        """Characters that the model may say behind ``text`` until this is to be asked again.

        A character is one token of the estimate at most: so many fit, whatever they are. As they are fewer tokens as a
        rule, this is asked again, but a few dozen times in an answer and not for every token.
        """
        said, policy = self._live.said, self._policy
        room = policy.answer_limit - sum(map(len, said)) - len(text)
        if room < 0:
            message = "The answer grew over this service's limit and was cut."
            raise OverLimitError("answer_too_long", message, retryable=False)
        used = total_of(self._live.spending.shares(said)) or Usage(0, 0)
        left = policy.run_tokens - used.input_tokens - used.output_tokens - asked - tokens_in(text)
        if left < 0:
            message = "The answer needs more tokens than this service allows, and was stopped."
            raise OverLimitError("too_many_tokens", message, retryable=False)
        return min(room, left)
