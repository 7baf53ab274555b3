"""What a response's options are called where the model is asked, by chat completions."""

from handlers.v1.response_bodies import FunctionChoice, ResponseBody, SchemaFormat


def options_of(body: ResponseBody) -> dict[str, object]:
    """Those that were given. What is wrong with them, the model's server says."""
    options = body.model_dump(include={"temperature", "top_p", "parallel_tool_calls"}, exclude_none=True)
    if body.max_output_tokens is not None:
        options["max_completion_tokens"] = body.max_output_tokens
    if isinstance(body.tool_choice, FunctionChoice):
        options["tool_choice"] = {"type": "function", "function": {"name": body.tool_choice.name}}
    elif body.tool_choice is not None:
        options["tool_choice"] = body.tool_choice
    if body.reasoning is not None and body.reasoning.effort is not None:
        options["reasoning_effort"] = body.reasoning.effort
    if body.text is not None and body.text.verbosity is not None:
        options["verbosity"] = body.text.verbosity
    wanted = None if body.text is None else body.text.format
    if isinstance(wanted, SchemaFormat):
        schema = wanted.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted is not None and wanted.type == "json_object":
        options["response_format"] = {"type": "json_object"}
    return options
