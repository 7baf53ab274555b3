"""What comes from outside, drawn: bytes that are cut anywhere, JSON that is nearly right, headers."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

odd_texts: st.SearchStrategy[str] = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab01.-_:%\"'\\*()^ \0\r\n\t²\u2028\ufeff🌍\uffff", max_size=12),
    st.sampled_from(
        ["", "null", "NaN", "1e999", "-1", "9" * 19, "9" * 400, "../..", "' OR 1=1 --", "x" * 300, "run_x.1"]
    ),
)

numbers: st.SearchStrategy[Any] = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 10**400, -1, 0, 1e308, -0.0, 1e-320]),
    st.floats(allow_nan=False, allow_infinity=False),
)

DEEP = "deep:"
"""What begins so stands for a list in a list, so many times: Python could not write that down."""

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | odd_texts | st.integers(1, 2_000).map(lambda depth: f"{DEEP}{depth}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly(draw: st.DrawFn, right: st.SearchStrategy[Any]) -> Any:
    """A document with some of its parts taken away, doubled, or replaced by something else."""
    document = json.loads(json.dumps(draw(right)))
    for _ in range(draw(st.integers(0, 3))):
        document = _changed(draw, document)
    return document


def _changed(draw: st.DrawFn, document: Any) -> Any:
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 9)) == 0:
        return draw(json_values)
    keys: Sequence[Any] = list(document) if isinstance(document, dict) else range(len(document))
    key = draw(st.sampled_from(keys))
    match draw(st.integers(0, 9)):
        case 0:
            del document[key]
        case 1 if isinstance(document, list):
            document.append(document[key])
        case 1 if isinstance(document, dict):
            document[draw(odd_texts)] = document[key]
        case _:
            document[key] = _changed(draw, document[key])
    return document


def written(document: Any, *, ascii_only: bool = False) -> bytes:
    """The document as bytes, as deep as it says."""
    text = json.dumps(document, ensure_ascii=ascii_only)
    deep = re.sub(rf'"{DEEP}([0-9]{{1,4}})"(?!:)', lambda found: "[" * int(found[1]) + "]" * int(found[1]), text)
    return deep.encode("utf-8", "surrogatepass")


@st.composite
def cut(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """The same bytes, in pieces."""
    data = draw(whole)
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@st.composite
def spliced(draw: st.DrawFn, samples: Mapping[str, bytes]) -> bytes:
    """Something real, with a few of its bytes missing, repeated or replaced."""
    data = draw(st.sampled_from(list(samples.values())))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data = data[:start] + draw(st.one_of(st.binary(max_size=8), st.just(data[start:end] * 2))) + data[end:]
    return data
