"""What AG-UI's routes are for."""

from handlers.ag_ui import JoinQuery, RunAgentInput
from handlers.openapi.operation import ACCEPTED, ASKING, BODY, FOLLOW, RUN, START, Answer, Operation

_EVENTS = Answer(description="AG-UI's events.", streams=("ag-ui",), headers=RUN)

AG_UI: dict[str, Operation] = {
    "POST /ag-ui": Operation(
        tag="AG-UI",
        summary="Run the agent",
        description="For the clients of AG-UI, as they are. The same `runId` again attaches to its run, and with "
        "`Last-Event-ID` goes on right behind it. `tools` are the client's: a run that calls one ends there.",
        body=RunAgentInput,
        headers=ASKING,
        answers={200: _EVENTS, 202: ACCEPTED},
        raises=(*BODY, "collection_unknown", "run_in_progress", *START, *FOLLOW),
    ),
    "GET /ag-ui": Operation(
        tag="AG-UI",
        summary="Join a run of the agent",
        description="From its start, or behind `Last-Event-ID`.",
        query=JoinQuery,
        headers=("Last-Event-ID",),
        answers={200: _EVENTS},
        raises=("invalid_request", *FOLLOW),
    ),
}
