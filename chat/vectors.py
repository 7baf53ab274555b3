"""Vectors: what an embedding model answers, made comparable."""

import base64
import json
import math
import struct
from collections.abc import Sequence
from itertools import starmap
from operator import mul
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
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, struct.error):
        raise ValueError("no embeddings") from None
    if places != list(range(count)):
        raise ValueError("other embeddings than were asked for")
    if len({len(vector) for vector in vectors}) > 1 or not 0 < dimensions(vectors[0]) <= MAX_DIMENSIONS:
        raise ValueError("embeddings of impossible dimensions")
    return vectors


def _vector(embedding: str | Sequence[float]) -> Vector:
    """From base64 or a list of numbers: servers that do not know the one send the other."""
    if isinstance(embedding, str):
        raw = base64.b64decode(embedding, validate=True)
        embedding = struct.unpack(f"<{len(raw) // 4}f", raw)
    length = math.sqrt(sum(starmap(mul, zip(embedding, embedding, strict=True))))
    if not math.isfinite(length):
        raise ValueError
    return struct.pack(f"<{len(embedding)}f", *[number / (length or 1.0) for number in embedding])
