"""What tools write down: reports, feedback, orders. Kept beside the conversation, and beyond it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One entry. ``data`` is JSON; ``created_at`` is in milliseconds since 1970."""

    id: str
    kind: str
    session_id: str
    user_id: str
    run_id: str
    data: Mapping[str, object]
    created_at: int
