"""What OpenAI's API is for here."""

from handlers.formats.response_views import ResponseView
from handlers.openapi.operation import ACCEPTED, ASKING, BODY, FOLLOW, MODEL, RUN, SEEN, START, STORE, Answer, Operation
from handlers.v1.bodies import CompletionBody
from handlers.v1.response_bodies import ResponseBody, ResponseQuery
from handlers.v1.views import CompletionView, OpenAIModelsView, OpenAIModelView

V1: dict[str, Operation] = {
    "GET /v1/models": Operation(
        tag="OpenAI",
        summary="List the models, as OpenAI does",
        answers={200: Answer(description="All of them, the default first.", view=OpenAIModelsView)},
        openai=True,
    ),
    "GET /v1/models/{model}": Operation(
        tag="OpenAI",
        summary="Look at a model, as OpenAI shows it",
        answers={200: Answer(description="It is offered.", view=OpenAIModelView)},
        raises=("not_found",),
        openai=True,
    ),
    "POST /v1/chat/completions": Operation(
        tag="OpenAI",
        summary="Answer a conversation, as OpenAI does",
        description="For the clients of OpenAI's chat completions, as they are. The client brings the whole "
        "conversation; with `X-Session-Id` or `metadata.session_id` it is followed as far as it agrees with the stored "
        "one, and a single message continues that. Each request without a session is one of its own. `tools` are the "
        "client's: a run that calls one ends there. What is not text is not taken.",
        body=CompletionBody,
        headers=(*ASKING, "X-Session-Id"),
        answers={
            200: Answer(
                description="The whole answer, or its chunks with `stream`.",
                view=CompletionView,
                streams=("chunks",),
                headers=RUN,
            ),
            202: ACCEPTED,
            204: SEEN,
        },
        raises=(*BODY, "collection_unknown", "run_in_progress", "run_stopped", *START, *FOLLOW, *MODEL),
        openai=True,
    ),
    "POST /v1/responses": Operation(
        tag="OpenAI",
        summary="Ask for a response",
        description="For the clients of OpenAI's responses, as they are. `previous_response_id` continues that, "
        "wherever its session is by now; `conversation` is a session and the input what is new in it; with the header "
        "alone, several messages are the whole conversation, as in chat completions. `tools` are the client's: a "
        "run that calls one ends there, and the next request brings the `function_call_output`. Calls of the service's "
        "own tools appear as `mcp_call`. What is not text is not taken.",
        body=ResponseBody,
        headers=("Idempotency-Key", "Last-Event-ID", "X-Session-Id"),
        answers={
            200: Answer(
                description="The response: whole, its events with `stream`, or as it begins with `background`.",
                view=ResponseView,
                streams=("response",),
                headers=RUN,
            ),
            204: SEEN,
        },
        raises=(*BODY, "template_unknown", "collection_unknown", "run_in_progress", *START, *FOLLOW, *MODEL),
        openai=True,
    ),
    "GET /v1/responses/{response_id}": Operation(
        tag="OpenAI",
        summary="Look at a response, or follow it",
        description="Any run is a response: `resp_` stands for the `run_` of its id. A stop is told as "
        "`response.failed`, with the status `cancelled`.",
        query=ResponseQuery,
        headers=("Last-Event-ID",),
        answers={
            200: Answer(
                description="The response as it is now, or with `stream` what follows up to its end.",
                view=ResponseView,
                streams=("response",),
                headers=RUN,
            ),
            204: SEEN,
        },
        raises=("invalid_request", "cursor_mismatch", *FOLLOW),
        openai=True,
    ),
    "POST /v1/responses/{response_id}/cancel": Operation(
        tag="OpenAI",
        summary="Stop a response",
        description="In the background or not. One that has ended stays as it is.",
        answers={200: Answer(description="The response as it is then.", view=ResponseView)},
        raises=("not_found", *STORE),
        openai=True,
    ),
}
