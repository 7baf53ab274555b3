"""What Schemathesis cannot know from the description."""

import itertools
import re
from typing import Any

import schemathesis

KEY = re.compile(r"[\x21-\x7e]{1,255}")

_numbers = itertools.count()


@schemathesis.hook
def filter_body(_: Any, body: Any) -> bool:
    """A form's fields are text: what is no string becomes one on its way, and may be right."""
    if not isinstance(body, dict) or "file" not in body:
        return True
    return all(isinstance(value, str | list) for name, value in body.items() if name != "file")


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """A key that is right is right for one request only, and the same one comes with many."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"
