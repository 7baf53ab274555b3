"""The operations on users."""

from handlers.openapi.operation import STORE, STREAM, Answer, Operation
from handlers.users import Download
from handlers.views import AnonymousView

_LINES = """\
{"parley":{"format":2,"version":"0.1.0","user_id":"alice"}}
{"session":{"id":"demo","user_id":"alice","title":"A greeting"}}
{"end":{"lines":3}}
"""

USERS = {
    "POST /users/anonymous": Operation(
        tag="Users",
        summary="Become an anonymous user",
        description="With `AUTH=jwt` and `ANONYMOUS_USERS=true`: an id that nobody else can claim, and the token that "
        "says so. Whoever sends that as `Authorization: Bearer` gets another for the same user.",
        answers={201: Answer(description="The user.", view=AnonymousView)},
        raises=("not_found", "unauthorized", *STORE),
    ),
    "DELETE /users/{user_id}": Operation(
        tag="Users",
        summary="Delete all that is a user's",
        description="Sessions, messages, runs with their events, idempotency keys, records, and what is in the index "
        "for searches; active runs are cancelled first. The sums of `/usage` stay as they are, without the name. "
        "Should it be cut off, ask again: it goes on.\n\n"
        "Users may do so for themselves, admin keys for anybody.",
        answers={204: Answer(description="It is gone.")},
        raises=("forbidden", "not_found", *STORE),
    ),
    "GET /users/{user_id}/export": Operation(
        tag="Users",
        summary="Take along all that is a user's",
        description="Lines of JSON, each an object with one member that names its kind: `parley`, which says the "
        "format; `session`, `message`, `run`, `page` (of a run's events), `claim` (an idempotency key), `approval`, "
        "`record` and `usage`; last `end` with the number of all lines, without which it was cut off. `server.py "
        "import` reads it. It is read while it is sent: what is said meanwhile may be in it or not.\n\n"
        "Users may do so for themselves, admin keys for anybody.",
        answers={200: Answer(description="The lines.", text=_LINES, media=Download.media_type)},
        raises=("forbidden", "not_found", *STREAM, *STORE),
    ),
}
