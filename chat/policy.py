"""What a run may take, and what becomes of it where it goes beyond."""

from dataclasses import dataclass, field
from enum import StrEnum

from chat.context import Budgets
from chat.errors import ModelError


class CrashRecovery(StrEnum):
    """What becomes of an answer of which a part was shown when its process died."""

    CONTINUE = "continue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of a run.

    ``budgets``: of what is sent along, :mod:`chat.room` says how. ``retries``: repeats of a request of which nothing
    was shown. ``longest_wait``: seconds; for an upstream that asks for more, the run fails at once.
    ``answer_limit``: characters. ``takeovers``: how often a run may change its owner without a word of progress, so
    that an answer that kills its process does not kill the next one for ever. ``steps``: how often the model is asked
    in one run, when it goes on calling tools. ``run_seconds``: how long a run may take in all, tools included.
    ``run_tokens``: in and out, of all its requests together, as they are reported or estimated.
    ``passage_tokens``: of all passages of documents that a model is shown for an answer, and of those that each search
    of its own finds. ``search_documents``: whether it may make any.
    """

    system_prompt: str | None = None
    budgets: Budgets = field(default_factory=Budgets)
    retries: int = 2
    longest_wait: float = 10.0
    answer_limit: int = 1_000_000
    crash_recovery: CrashRecovery = CrashRecovery.CONTINUE
    takeovers: int = 8
    steps: int = 8
    run_seconds: float = 600.0
    run_tokens: int = 1_000_000
    passage_tokens: int = 2_000
    search_documents: bool = True


class OverLimitError(ModelError):
    """A limit of the service's own: the model has not failed, and is not asked again."""
