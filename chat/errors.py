"""What can go wrong, as the domain says it. Only the handlers know which HTTP status a code becomes."""

from collections.abc import Mapping, Sequence


class ChatError(Exception):
    """A failure with a stable, machine-readable code.

    ``message`` is written for the client: it never carries an upstream's body, a key or a prompt.
    ``details`` are extra members for the error's body, such as the ``run_id`` of the run that is in the way.
    ``retry_after`` is in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.retry_after = retry_after


class ModelError(ChatError):
    """The model's side failed. ``retryable`` tells the client whether asking again can help.

    ``transient`` tells the engine that the very same request may be sent again, as long as nothing was shown.
    ``final`` says that the request is at fault, such as by a text that is refused: no other model should be asked.
    ``taken`` says that the upstream had taken the request up, so that it may charge for it; ``charged`` are the models
    of which that is so, where several were asked.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool,
        transient: bool = False,
        final: bool = False,
        taken: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, message, retry_after=retry_after)
        self.retryable = retryable
        self.transient = transient
        self.final = final
        self.taken = taken
        self.charged: Sequence[str] = ()


class StoreUnavailableError(ChatError):
    """The store cannot be read or written now: locked, full, gone. What was acknowledged is not affected."""

    def __init__(self, message: str = "The conversation store is not available right now.") -> None:
        super().__init__("store_unavailable", message, retry_after=2)


class StoreNewerError(StoreUnavailableError):
    """A later version of this service has changed the database; this one would not understand it. It is left alone."""


class StoreCorruptError(ChatError):
    """The database is damaged. Nothing is written any more, so that it can be rescued as it is."""

    def __init__(self) -> None:
        super().__init__("store_corrupt", "The conversation store is damaged and needs its operator.")
