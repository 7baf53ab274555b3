"""What OpenAI's API is for here."""

from handlers.openapi.operation import ACCEPTED, ASKING, BODY, FOLLOW, MODEL, RUN, START, Answer, Operation
from handlers.v1.bodies import CompletionBody
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
        },
        raises=(*BODY, "run_in_progress", "run_stopped", *START, *FOLLOW, *MODEL),
        openai=True,
    ),
}
