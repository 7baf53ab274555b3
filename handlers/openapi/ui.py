"""What the AI SDK asks for beside ``POST /api/chat``."""

from handlers.openapi.operation import BODY, FOLLOW, RUN, STORE, Answer, Operation
from handlers.ui.bodies import UIStopBody

UI: dict[str, Operation] = {
    "GET /api/chat/{session_id}/stream": Operation(
        tag="Chat",
        summary="Resume the answer that is being written, with the AI SDK",
        description="From its beginning, and with what it goes on with: the client builds its message anew.",
        answers={
            200: Answer(description="The whole of the answer, as it is written.", streams=("parts",), headers=RUN),
            204: Answer(description="Nothing is being written."),
        },
        raises=FOLLOW,
    ),
    "POST /api/chat/{session_id}/stop": Operation(
        tag="Chat",
        summary="Stop the answer that is being written, with the AI SDK",
        description="Keeps what was written. A client that only goes away stops nothing, and can resume.",
        body=UIStopBody,
        answers={204: Answer(description="It has ended, or nothing was being written.")},
        raises=(*BODY, *STORE),
    ),
}
