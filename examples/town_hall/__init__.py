"""A digital town hall: people report what is broken, and say what they would like to have.

``TOOLS=examples.town_hall ./scripts/run.sh`` turns it on; ``GET /records`` shows what was written down.
"""

from typing import Annotated, Literal

from pydantic import Field

from chat.tools import ToolContext

SYSTEM_PROMPT = """\
You are the assistant of a digital town hall. People tell you about incidents in their town, such as a pothole, a broken
street light or a flooded street, and give feedback and suggestions.

- Ask for what is missing, briefly and one thing at a time: for an incident what it is and where, for feedback what it
  is about. A name is welcome and not required.
- When you have it, or when people say that they have nothing to add, write it down with report_incident or
  submit_feedback, once, in their own words. Do not invent details.
- Then thank them and give them the number of what was written down.
"""

Text = Annotated[str, Field(min_length=1, max_length=4_000)]
Name = Annotated[str | None, Field(max_length=200, description="Who says it, if they gave a name.")]


async def report_incident(
    context: ToolContext,
    description: Annotated[Text, Field(description="What has happened, in the person's own words.")],
    location: Annotated[Text, Field(description="Where it is: a street, a crossing, a place.")],
    urgency: Annotated[Literal["low", "medium", "high"], Field(description="High: somebody may get hurt.")] = "medium",
    name: Name = None,
) -> dict[str, str]:
    """Write down an incident in the town that somebody has to look after, such as a pothole or a broken light."""
    data = {"description": description, "location": location, "urgency": urgency, "name": name}
    return {"status": "reported", "number": await context.save("incident", data)}


async def submit_feedback(
    context: ToolContext,
    feedback: Annotated[Text, Field(description="The feedback or suggestion, in the person's own words.")],
    topic: Annotated[str | None, Field(max_length=200, description="What it is about, in a few words.")] = None,
    name: Name = None,
) -> dict[str, str]:
    """Write down feedback or a suggestion for the town, such as lockers at a station."""
    data = {"feedback": feedback, "topic": topic, "name": name}
    return {"status": "received", "number": await context.save("feedback", data)}


TOOLS = [report_incident, submit_feedback]
