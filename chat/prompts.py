"""Prompt templates: the operator writes them, a request names one and gives its variables."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chat.errors import ChatError

VARIABLES_BYTES = 16_384
"""What a request may fill into a template, as JSON: names and lists, not documents. Those are messages."""

PROMPT_CHARS = 100_000
"""The longest prompt that a template may become; it is stored with every run that uses it."""

logger = logging.getLogger(__name__)

Scalar: TypeAlias = str | bool | int | float
Variables: TypeAlias = Mapping[str, Scalar | Sequence[Scalar]]


@dataclass(frozen=True, slots=True)
class Template:
    """``variables`` are the names that have to be given, all of them and no others.

    ``render`` gives the text. It raises ``ValueError`` where these values make none: what is joined cannot be joined,
    a loop or the text gets too long. What it says is for the log and repeats no value.
    """

    name: str
    variables: frozenset[str]
    render: Callable[[Variables], str]


def prompt_of(templates: Mapping[str, Template], name: str, variables: Variables) -> str:
    """The text of the template of this name, filled in.

    Raises:
        ChatError: ``template_unknown``; ``invalid_request`` names the variables that are missing or too many.
    """
    template = templates.get(name)
    if template is None:
        raise ChatError("template_unknown", "There is no such template.")
    _check_names(template, variables)
    if len(json.dumps(variables)) > VARIABLES_BYTES:
        raise ChatError("invalid_request", f"variables: at most {VARIABLES_BYTES:,} bytes of JSON.")
    try:
        return template.render(variables)
    except ValueError as error:
        logger.info("the template %s was not filled: %s", name, error)
        raise ChatError("invalid_request", "variables: the template cannot be filled with these values.") from error


def _check_names(template: Template, variables: Variables) -> None:
    missing = [(name, "It is missing.") for name in sorted(template.variables - variables.keys())]
    surplus = [(name, "The template has no such variable.") for name in sorted(variables.keys() - template.variables)]
    errors = [{"field": f"variables.{name}", "message": message} for name, message in missing + surplus]
    if errors:
        message = f"{errors[0]['field']}: {errors[0]['message']}"
        raise ChatError("invalid_request", message, details={"errors": errors})
