"""How well passages are found: by words, by vectors, and by both. And what the vectors cost among 100,000 chunks.

The collection and the questions are :mod:`benchmarks.corpus` and :mod:`benchmarks.questions`. Documents are taken
apart, stored, embedded over HTTP and searched by the same code as in the service.
"""

import asyncio
import math
import random
import sqlite3
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from benchmarks import corpus, questions
from benchmarks.processes import ROOT, free_port, server
from benchmarks.report import Report, verdict
from chat.documents import Lookup, NewDocument, Passage, words_of_question
from chat.embedding import Embedding
from chat.embeddings import Embedder, Nearness
from chat.ids import new_id
from chat.model import OpenAIEmbedder
from chat.retrieval import Retrieval
from knowledge.chunks import chunks_of, parser_of
from store.sqlite import SqliteStore

PYTHON = ROOT / ".venv-wordllama/bin/python"

COLLECTION = "python"

DEPTH = 10
"""Of nDCG. Recall is looked for among the first five."""

CHUNKS = 100_000
DIMENSIONS = 1_536
"""Of OpenAI's text-embedding-3-small."""

MOST_CPU = 0.030
"""Seconds that the vectors may cost a search."""

Search = Callable[[str], Awaitable[Sequence[Passage]]]


def run(*, short: bool = False) -> Sequence[Report]:
    reports = [asyncio.run(cost(CHUNKS // 20 if short else CHUNKS))]
    if PYTHON.exists():
        port = free_port()
        with server([str(PYTHON), "-m", "benchmarks.embeddings", f"--port={port}"], port) as running:
            return [asyncio.run(_quality(f"{running.url}/v1")), *reports]
    print("no quality: .venv-wordllama is missing, see benchmarks/run.sh")
    return reports


# --- quality --------------------------------------------------------------------------------------------------


async def _quality(url: str) -> Report:
    embedder = OpenAIEmbedder(
        name="wordllama", base_url=url, api_key="", model="wordllama", dimensions=None, connect_timeout=5
    )
    with TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "parley.db")
        await store.open()
        try:
            chunks = await _stored(store)
            await _embedded(store, embedder)
            searches = _searches(store, embedder)
            rows = [await _row(name, search, chunks) for name, search in searches.items()]
        finally:
            await store.close()
            await embedder.close()
    version = ".".join(map(str, sys.version_info[:2]))
    about = (
        f"{len(questions.OTHER) + len(questions.SAME)} questions, {len(questions.OTHER)} of them in other words than "
        f"the text's, to {len(chunks):,} passages of the reference of Python {version} and docstrings of its library. "
        "The embeddings are WordLlama's, of 256 dimensions: means of vectors of tokens, which know synonyms and no "
        "sentences."
    )
    return Report(
        "retrieval",
        "How well passages are found",
        ["search", "recall@5", "nDCG@10", "recall@5, other words", "nDCG@10, other words", "recall@5, same words",
         "nDCG@10, same words"],
        rows,
        chart=2,
        notes=[about],
    )  # fmt: skip


async def _stored(store: SqliteStore) -> Sequence[str]:
    """Everything in the store; the texts of all chunks, white space evened out."""
    texts = []
    for title, text in corpus.documents():
        chunks = chunks_of(text.encode(), parser_of("text/markdown"))
        size = len(text.encode())
        await store.add_document(NewDocument(new_id("doc"), None, COLLECTION, title, "text/markdown", size, chunks), 0)
        texts += [_even(chunk.text) for chunk in chunks]
    return texts


async def _embedded(store: SqliteStore, embedder: Embedder) -> None:
    work = Embedding(store, embedder)
    await work.turn()
    while work.pause == 0:
        await work.turn()


def _searches(store: SqliteStore, embedder: Embedder) -> dict[str, Search]:
    both = Retrieval(store, embedder)

    async def words(question: str) -> Sequence[Passage]:
        return await store.passages(Lookup(words_of_question(question), COLLECTION, None, DEPTH))

    async def vectors(question: str) -> Sequence[Passage]:
        [vector] = await embedder.embed([question], 5)
        return await store.nearest(Nearness(vector, embedder.name, COLLECTION, None, DEPTH))

    async def fused(question: str) -> Sequence[Passage]:
        return await both.passages(question, COLLECTION, None, DEPTH)

    return {"keyword": words, "vector": vectors, "fused": fused}


async def _row(name: str, search: Search, chunks: Sequence[str]) -> Sequence[object]:
    other = [await _judged(search, *asked, chunks) for asked in questions.OTHER]
    same = [await _judged(search, *asked, chunks) for asked in questions.SAME]
    figures = [mean(judged[which] for judged in some) for some in (other + same, other, same) for which in (0, 1)]
    return [name, *[f"{figure:.3f}" for figure in figures]]


async def _judged(search: Search, question: str, phrase: str, chunks: Sequence[str]) -> tuple[float, float]:
    """Recall@5 and nDCG@10. What is relevant is what has the phrase: one passage, as a rule."""
    relevant = sum(_even(phrase) in chunk for chunk in chunks)
    if not relevant:
        raise ValueError(f"no passage of this Python's documentation has: {phrase}")
    gains = [_even(phrase) in _even(passage.text) for passage in await search(question)]
    ideal = sum(1 / math.log2(place + 2) for place in range(min(relevant, DEPTH)))
    return (
        sum(gains[:5]) / min(relevant, 5),
        sum(gain / math.log2(place + 2) for place, gain in enumerate(gains)) / ideal,
    )


def _even(text: str) -> str:
    return " ".join(text.split())


# --- cost -----------------------------------------------------------------------------------------------------


async def cost(count: int) -> Report:
    """CPU of this process, all its threads together, which does nothing else."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "parley.db"
        store = SqliteStore(file)
        await store.open()
        await store.want_embeddings("random")
        await store.close()
        _fill(file, count)
        await store.open()
        try:
            asked = [Nearness(_vector(), "random", COLLECTION, None, 50) for _ in range(21)]
            first, *others = [await _cpu(store, wanted) for wanted in asked]
        finally:
            await store.close()
    found = median(others)
    return Report(
        "retrieval-cost",
        "What vectors cost a search",
        ["chunks", "dimensions", "CPU of a search", "of the first one, which reads their signs"],
        [[f"{count:,}", f"{DIMENSIONS:,}", f"{found * 1000:.1f} ms", f"{first * 1000:.0f} ms"]],
        notes=[verdict(f"{MOST_CPU * 1000:.0f} ms", found <= MOST_CPU, f"{found * 1000:.1f} ms")],
    )


async def _cpu(store: SqliteStore, wanted: Nearness) -> float:
    before = time.process_time()
    assert len(await store.nearest(wanted)) == wanted.limit
    return time.process_time() - before


def _fill(file: Path, count: int) -> None:
    """A hundred documents with so many chunks in all, without the index of their words."""
    from store.nearest import signs

    with closing(sqlite3.connect(file)) as db:
        db.execute("BEGIN")
        for trigger in ("chunk_is_new", "chunk_is_unembedded"):
            db.execute(f"DROP TRIGGER {trigger}")
        for number in range(100):
            name = f"doc_{number:026}"
            db.execute(
                """INSERT INTO documents (pos, id, collection, title, media_type, bytes, chunks, created_at, embedded)
                   VALUES (?, ?, ?, '', 'text/plain', 0, ?, 0, ?)""",
                (number + 1, name, COLLECTION, count // 100, count // 100),
            )
            positions = range(number * (count // 100) + 1, (number + 1) * (count // 100) + 1)
            vectors = [_vector() for _ in positions]
            db.executemany("INSERT INTO chunks VALUES (?, ?, ?, '', 'text')", [(pos, name, pos) for pos in positions])
            db.executemany(
                "INSERT INTO embeddings VALUES (?, 'random', ?, ?)",
                [(pos, DIMENSIONS, vector) for pos, vector in zip(positions, vectors, strict=True)],
            )
            db.executemany(
                "INSERT INTO embedding_signs VALUES (?, ?)",
                [(pos, signs(vector)) for pos, vector in zip(positions, vectors, strict=True)],
            )
        db.commit()


def _vector() -> bytes:
    """Some direction. Of which length makes no difference to what it costs."""
    return array("f", [byte - 127.5 for byte in random.randbytes(DIMENSIONS)]).tobytes()
