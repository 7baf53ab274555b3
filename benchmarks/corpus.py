"""A collection that every Python carries: the language's reference as `help()` shows it, and its library's docstrings.

Of the reference's topics some are parts of others; what is nine tenths in a longer one is left out. The docstrings
are there as what else is in such a collection: no question is about them.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pydoc_data.topics import topics

MODULES = (
    "argparse", "ast", "asyncio", "base64", "bisect", "calendar", "collections", "concurrent.futures", "configparser",
    "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "email.message", "enum", "fileinput",
    "fractions", "ftplib", "functools", "getpass", "gettext", "glob", "gzip", "hashlib", "heapq", "hmac", "html",
    "http.client", "http.cookies", "imaplib", "inspect", "io", "ipaddress", "itertools", "json", "locale", "logging",
    "mailbox", "math", "mimetypes", "multiprocessing", "numbers", "operator", "optparse", "os", "pathlib", "pickle",
    "plistlib", "poplib", "pprint", "profile", "queue", "random", "re", "sched", "secrets", "selectors", "shelve",
    "shlex", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl", "statistics", "string", "struct", "subprocess",
    "sys", "tarfile", "tempfile", "textwrap", "threading", "time", "timeit", "trace", "traceback", "types", "typing",
    "unittest", "urllib.parse", "urllib.request", "uuid", "warnings", "weakref", "xml.dom.minidom", "zipfile",
)  # fmt: skip


_UNDERLINED = re.compile(r"^(\S.*)\n([*=~-])\2{3,}$", re.MULTILINE)
_LEVELS = {"*": "#", "=": "##", "-": "###", "~": "####"}


def documents() -> Iterator[tuple[str, str]]:
    """Title and text of each, in Markdown."""
    for title, text in _topics():
        code = re.sub(r"^ {1,3}#", "    #", text, flags=re.MULTILINE)  # a comment in an example, and no heading
        yield title, _UNDERLINED.sub(lambda match: f"{_LEVELS[match[2]]} {match[1]}", code)
    for name in MODULES:
        text = "\n\n".join(_told(name))
        if text:
            yield f"Module {name}", re.sub(r"^ {0,3}#", "    #", text, flags=re.MULTILINE)


def _topics() -> Iterator[tuple[str, str]]:
    known: set[str] = set()
    for name, text in sorted(topics.items(), key=lambda topic: -len(topic[1])):
        parts = [part for part in _paragraphs(text) if len(part) > 40]
        if sum(part in known for part in parts) < 0.9 * len(parts):
            known.update(parts)
            yield name, text


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]


def _told(name: str) -> Iterator[str]:
    """The docstrings of a module and of what it makes public."""
    module = import_module(name)
    if doc := inspect.getdoc(module):
        yield doc
    for public in sorted(getattr(module, "__all__", dir(module))):
        member = getattr(module, public, None)
        if public.startswith("_") or not (inspect.isclass(member) or inspect.isroutine(member)):
            continue
        home = getattr(member, "__module__", None) or ""
        if home.partition(".")[0] != name.partition(".")[0]:
            continue
        if doc := inspect.getdoc(member):
            yield f"{public}: {doc}"
        if inspect.isclass(member):
            for method, value in sorted(vars(member).items()):
                if not method.startswith("_") and inspect.isroutine(value) and (doc := inspect.getdoc(value)):
                    yield f"{public}.{method}: {doc}"
