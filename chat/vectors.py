"""Vectors: what an embedding model answers, made comparable."""

import base64
import json
import math
from array import array
from collections.abc import Sequence
from itertools import starmap
from operator import mul
from sys import byteorder
from typing import TypeAlias

Vector: TypeAlias = bytes
"""Float32 numbers, little-endian: of length 1, or all of them 0. Four bytes a dimension."""

MAX_DIMENSIONS = 16_384
"""More than any model has: what is longer is something else."""


def dimensions(vector: Vector) -> int:
    return len(vector) // 4


def vectors_in(body: bytes, count: int) -> Sequence[Vector]:
    """The vectors of a body that answers for ``count`` texts, in their order.

    https://developers.openai.com/api/reference/resources/embeddings/methods/create

    Raises:
        ValueError: it is not what it should be. The message quotes nothing of it.
    """
    try:
        data = sorted(json.loads(body)["data"], key=lambda item: item["index"])
        vectors = [_vector(item["embedding"]) for item in data]
        places = [item["index"] for item in data]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError("no embeddings") from None
    if places != list(range(count)):
        raise ValueError("other embeddings than were asked for")
    if len({len(vector) for vector in vectors}) > 1 or not 0 < dimensions(vectors[0]) <= MAX_DIMENSIONS:
        raise ValueError("embeddings of impossible dimensions")
    return vectors


def _vector(embedding: str | Sequence[float]) -> Vector:
    """From base64 or a list of numbers: servers that do not know the one send the other."""
    numbers = array("f")
    if isinstance(embedding, str):
        numbers.frombytes(base64.b64decode(embedding, validate=True))
        if byteorder == "big":  # pragma: no cover  # s390x
            numbers.byteswap()
    else:
        numbers.extend(embedding)
    length = math.sqrt(sum(starmap(mul, zip(numbers, numbers, strict=True))))
    if not math.isfinite(length):
        raise ValueError
    if length:
        numbers = array("f", [number / length for number in numbers])
    if byteorder == "big":  # pragma: no cover
        numbers.byteswap()
    return numbers.tobytes()
