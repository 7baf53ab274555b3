import base64
import json
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.vectors import MAX_DIMENSIONS, Vector, dimensions, vectors_in


def numbers_of(vector: Vector) -> list[float]:
    return array("f", vector).tolist()


def body(*embeddings: object) -> bytes:
    return json.dumps({"data": [{"index": place, "embedding": one} for place, one in enumerate(embeddings)]}).encode()


def in_base64(numbers: Sequence[float]) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode()


@pytest.mark.parametrize("written", [[3.0, 0, -4], in_base64([3.0, 0, -4])])
def test_vector_has_length_1_however_it_was_written(written: object) -> None:
    [vector] = vectors_in(body(written), 1)
    assert numbers_of(vector) == pytest.approx([0.6, 0, -0.8])
    assert dimensions(vector) == 3


def test_vectors_come_in_the_order_of_the_texts() -> None:
    data = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]
    assert [numbers_of(vector) for vector in vectors_in(json.dumps({"data": data}).encode(), 2)] == [[1, 0], [0, 1]]


def test_vector_of_nothing_stays_one_of_nothing() -> None:
    assert numbers_of(vectors_in(body([0, 0]), 1)[0]) == [0, 0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": 1}',
        b'{"data": [1]}',
        b'{"data": [{"index": "0", "embedding": [1]}]}',
        b'{"data": [{"embedding": [1]}]}',
        b'{"data": [{"index": 0, "embedding": null}]}',
        b'{"data": [{"index": 0, "embedding": ["a"]}]}',
        b'{"data": [{"index": 0, "embedding": [1e999]}]}',
        b'{"data": [{"index": 0, "embedding": [NaN]}]}',
        b'{"data": [{"index": 0, "embedding": [1e300]}]}',
        b'{"data": [{"index": 0, "embedding": "?"}]}',
        b'{"data": [{"index": 0, "embedding": "AAA="}]}',
        b'{"data": [{"index": 0, "embedding": "\xff"}]}',
        b"[" * 100_000,
        body([]),
        body([1], [1]),
        body([1] * (MAX_DIMENSIONS + 1)),
    ],
)
def test_what_is_no_embedding_is_refused_in_words_that_quote_nothing(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(no embeddings|other embeddings|embeddings of impossible)"):
        vectors_in(answer, 1)


def test_vectors_of_different_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="impossible dimensions"):
        vectors_in(body([1], [1, 2]), 2)
    with pytest.raises(ValueError, match="other embeddings"):
        vectors_in(body(), 1)


@given(st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(body))
def test_whatever_is_answered_is_a_vector_or_refused(answer: bytes) -> None:
    try:
        [vector] = vectors_in(answer, 1)
    except ValueError:
        return
    assert len(vector) == 4 * dimensions(vector) > 0
