"""Text that others have sent, as it can be stored, and an address as it may be shown."""

import re

_WHO = re.compile(r"^([a-z][a-z0-9+.-]*://)?(?:[^/?#]*|[^/?#:]*:(?!\d+/|//).*)@", re.IGNORECASE | re.DOTALL)
"""Who asks, and the password; also where that has characters that it may not have in an address."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def text_in(value: object) -> str:
    """``value`` as text that UTF-8 can encode; empty if it is none."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def without_password(url: str) -> str:
    """The address as it may be shown."""
    return _WHO.sub(r"\1***@", url)
