"""What is said of an operation, and what many have in common."""

from collections.abc import Mapping
from dataclasses import dataclass

from handlers.bodies import Body
from handlers.errors import STATUS
from handlers.views import RunView

STORE = ("store_unavailable", "store_corrupt")
BODY = ("body_too_large", "unsupported_media_type", "invalid_json", "invalid_request")
START = (
    "draining",
    "idempotency_conflict",
    "model_not_allowed",
    "not_found",
    "invalid_cursor",
    "cursor_mismatch",
    "too_many_runs",
    "budget_spent",
    "service_full",
    *STORE,
)
STREAM = ("too_many_streams", "service_full")
FOLLOW = ("invalid_cursor", "not_found", "cursor_ahead", "cursor_expired", *STREAM, *STORE)
OVER = ("answer_too_long", "too_many_steps", "too_many_tokens", "run_timeout")
MODEL = (*(code for code in STATUS if code.startswith("upstream_")), *OVER)
"""A stream says these in its ``run.failed``; only an answer that is waited for becomes a status."""

RUN = ("X-Session-Id", "X-User-Id", "X-Run-Id", "Location", "Idempotency-Replayed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response that is no error. ``streams`` are names of example streams, ``headers`` of response headers.

    ``text`` is an example of a body that is neither JSON nor a stream, but of the type ``media``.
    """

    description: str
    view: type | None = None
    text: str = ""
    media: str = "text/plain"
    streams: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``headers`` are names of request headers; ``raises`` are codes, ``internal`` goes without saying.

    ``or_body``: what another kind of client sends instead, ``form``: the same as a form.
    ``openai``: it says the codes as OpenAI does.
    """

    tag: str
    summary: str
    description: str = ""
    query: type[Body] | None = None
    body: type[Body] | None = None
    or_body: type[Body] | None = None
    form: type[Body] | None = None
    headers: tuple[str, ...] = ()
    answers: Mapping[int, Answer]
    raises: tuple[str, ...] = ()
    openai: bool = False


ACCEPTED = Answer(
    description="With `Prefer: respond-async`: the message is stored, the run goes on, and `events_url` follows it.",
    view=RunView,
    headers=(*RUN, "Preference-Applied"),
)
SEEN = Answer(description="The cursor is the run's last event: there is nothing more. EventSource stops.")
ASKING = ("Idempotency-Key", "Last-Event-ID", "Prefer", "traceparent", "tracestate")
"""Request headers of what starts a run."""
