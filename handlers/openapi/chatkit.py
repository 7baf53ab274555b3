"""What ChatKit's route is for."""

from handlers.chatkit.bodies import ChatKitBody, ChatKitQuery
from handlers.openapi.operation import ACCEPTED, ASKING, BODY, FOLLOW, RUN, START, Answer, Operation

CHATKIT: dict[str, Operation] = {
    "POST /chatkit": Operation(
        tag="ChatKit",
        summary="Do what the widget asks for",
        description="For ChatKit's widget, as it is. A thread is a session, its items are the messages of the branch "
        "that is spoken to. `threads.create`, `threads.add_user_message`, `threads.retry_after_item` and "
        "`threads.add_structured_input`, which answers a call that waits for a yes, stream; a lost connection ends no "
        "run. Only with the package `openai-chatkit`, whose types say what `params` are.",
        query=ChatKitQuery,
        body=ChatKitBody,
        headers=ASKING,
        answers={
            200: Answer(
                description="ChatKit's events, or the thread, threads or items that were asked for.",
                view=dict,
                streams=("chatkit",),
                headers=RUN,
            ),
            202: ACCEPTED,
        },
        raises=(
            *BODY, "template_unknown", "collection_unknown", "run_in_progress", "already_decided", "chatkit_missing",
            *START, *FOLLOW,
        ),
    ),
}  # fmt: skip
