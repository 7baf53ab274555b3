"""The only file that imports jinja2: reads a folder of templates.

Who writes the templates is trusted, who fills them in is not: so what a variable can make large or slow is taken away
or counted. https://jinja.palletsprojects.com/en/stable/sandbox/#security-considerations
"""

import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.exceptions import SecurityError
from jinja2.meta import find_referenced_templates, find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chat.prompts import PROMPT_CHARS, Template, Variables

RENDER_SECONDS = 0.1
"""CPU time that loops and macros may take: while a template is filled in, no stream gets a token."""

POWER_BITS = 4_096
"""The longest number that ``**`` may make."""

SUFFIXES = (".txt", ".md", ".j2")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_PADDING_FILTERS = ("batch", "center", "format", "indent", "slice", "tojson")
_PADDING_METHODS = ("center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill")
"""They make as many characters as a number says, and a number may come from a request."""

_WATCH = "@watch"
"""No variable can have this name."""

# What values that do not fit can raise in the middle of a template; truncate() asserts.
_MISFITS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class TemplatesError(ValueError):
    """The folder or a file in it is wrong; the message is one sentence for the operator."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        # Plain text: there is nothing to escape for. A line that only has a tag leaves no empty line behind.
        super().__init__(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
        self.globals.clear()  # range() and lipsum() make as much as they are told to
        for name in _PADDING_FILTERS:
            del self.filters[name]

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        return attr not in _PADDING_METHODS and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > POWER_BITS:
                raise SecurityError("too large a power")
        elif not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError(f"{operator} is for numbers")
        return super().call_binop(context, operator, left, right)


def load_templates(folder: Path) -> Mapping[str, Template]:
    """The templates that lie directly in the folder, by name; hidden files and those of other suffixes are none.

    Raises:
        TemplatesError: of the first thing that is wrong.
    """
    environment = _Environment()
    templates: dict[str, Template] = {}
    try:
        files = sorted(file for file in folder.iterdir() if _is_template(file))
        for file in files:
            if not _NAME.fullmatch(file.stem):
                raise TemplatesError(f"{file.name}: a template's name has 1 to 64 of A-Z, a-z, 0-9, _ and -")
            if file.stem in templates:
                raise TemplatesError(f"{file.name}: there is another template of this name")
            templates[file.stem] = _template(environment, file.name, file.stem, file.read_text("utf-8"))
    except OSError as error:
        raise TemplatesError(f"it cannot be read: {error.strerror}: {error.filename}") from error
    except UnicodeDecodeError as error:
        raise TemplatesError(f"{file.name}: it is not UTF-8") from error
    return templates


def _is_template(file: Path) -> bool:
    return file.suffix in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _template(environment: _Environment, file: str, name: str, source: str) -> Template:
    try:
        tree = environment.parse(source)
        variables = find_undeclared_variables(tree)
        if (wrong := _refused(tree, variables)) is not None:
            raise TemplatesError(f"{file}: {wrong}")
        _watch_loops(environment, tree)
        # Compiling finds what parsing lets through, such as unknown filters.
        compiled = environment.from_string(tree)
    except TemplateSyntaxError as error:
        reason = (error.message or "").rstrip(".")
        raise TemplatesError(f"{file}, line {error.lineno}: {reason}") from error
    return Template(name, frozenset(variables), partial(_render, compiled))


def _refused(tree: nodes.Template, variables: set[str]) -> str | None:
    """What the template has that would only fail when it is filled in."""
    if any(True for _ in find_referenced_templates(tree)):
        return "a template cannot include, import or extend another one here"
    names = [f"{name}()" for name in sorted(variables & DEFAULT_NAMESPACE.keys())]
    names += [f".{node.attr}()" for node in tree.find_all(nodes.Getattr) if node.attr in _PADDING_METHODS]
    if names:
        return f"there is no {names[0]} in templates here"
    for node in tree.find_all((nodes.Mul, nodes.Mod)):
        if any(isinstance(side, nodes.Const) and isinstance(side.value, str) for side in (node.left, node.right)):
            return f"{node.operator} is for numbers here"
    return None


def _watch_loops(environment: _Environment, tree: nodes.Template) -> None:
    """Have every turn of a loop, every item that its condition looks at, and every call of a macro look at the time."""
    for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        assert isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock)
        watch = nodes.Getitem(nodes.ContextReference(), nodes.Const(_WATCH), "load")
        call = nodes.Call(watch, [], [], None, None)
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(call, node.test)
        node.body.insert(0, nodes.ExprStmt(call))
        node.set_lineno(node.lineno)
        node.set_environment(environment)


def _render(compiled: Compiled, variables: Variables) -> str:
    """Raises ValueError, and nothing else, whatever the variables are."""
    deadline = time.thread_time() + RENDER_SECONDS

    def watch() -> bool:
        if time.thread_time() > deadline:
            raise ValueError("it takes too long")
        return True

    text: list[str] = []
    room = PROMPT_CHARS
    try:
        for part in compiled.generate({**variables, _WATCH: watch}):
            text.append(part)
            room -= len(part)
            if room < 0:
                raise ValueError("too long a prompt")
    except _MISFITS as error:
        raise ValueError(type(error).__name__) from error
    return "".join(text)
