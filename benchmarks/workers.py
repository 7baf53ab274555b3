"""What a second worker adds: CPU a token with one and with two, and how even the streams are spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import Reading, Server, parley, upstream
from benchmarks.report import Report, verdict

TARGET = 1.8
"""Times the tokens of one worker that two have to carry."""

STREAMS = 150
"""For each worker."""

RATE = 50.0


@dataclass(frozen=True, slots=True)
class Carried:
    """``cpu``: CPU seconds of each worker; ``latency`` in milliseconds."""

    tokens: int
    cpu: Sequence[float]
    latency: dict[str, float]

    @property
    def cost(self) -> float:
        """Microseconds of CPU a token."""
        return sum(self.cpu) / self.tokens * 1e6

    @property
    def busiest(self) -> float:
        """The part of the CPU that the busiest worker has used."""
        return max(self.cpu) / sum(self.cpu)


def run(*, short: bool) -> Report:
    streams, seconds, rounds = (STREAMS // 3, 2.0, 1) if short else (STREAMS, 8.0, 3)
    found: dict[tuple[int, int], Carried] = {}
    rows = []
    with upstream(RATE, int(RATE * (seconds + 20))) as model:
        for workers, load in ((1, streams), (1, 2 * streams), (2, 2 * streams)):
            tries = [_carry(model, workers, load, seconds) for _ in range(rounds)]
            carried = found[workers, load] = sorted(tries, key=lambda one: one.cost)[rounds // 2]
            split = " + ".join(f"{cpu / sum(carried.cpu):.0%}" for cpu in sorted(carried.cpu, reverse=True))
            latency = [carried.latency[name] for name in ("p50", "p95", "p99")]
            rows.append((workers, load, f"{carried.cost:.1f}", split, f"{workers * 1e6 / carried.cost:,.0f}", *latency))
    two = found[2, 2 * streams]
    alike, same = (2 * found[1, load].cost / two.cost for load in (streams, 2 * streams))
    return Report(
        name="workers",
        title="Two workers beside one",
        columns=("workers", "streams", "us of CPU a token", "split", "tokens/s at 100%", "p50 ms", "p95 ms", "p99 ms"),
        rows=rows,
        notes=(
            f"Streams of {RATE:g} tokens/s; the middle one of {rounds} rounds by cost.",
            "Tokens/s at 100% are computed, workers / CPU a token: model and load would need cores of their own.",
            "Waiting for each other's commits takes no CPU: it is in the latency.",
            verdict(f"two carry {TARGET:g} times one, each loaded as the one", alike >= TARGET, f"{alike:.2f}"),
            f"At the same load for one and for two, where each of the two has less to commit together: {same:.2f}.",
            f"When the busiest of the two is full, with the split of this round: {alike / 2 / two.busiest:.2f}.",
        ),
    )


def _carry(model: Server, workers: int, streams: int, seconds: float) -> Carried:
    with (
        TemporaryDirectory() as folder,
        parley(Path(folder), base_url=f"{model.url}/v1", WORKERS=str(workers)) as server,
        Reading(f"{server.url}/chat", f"--streams={streams}", f"--seconds={seconds}") as reading,
    ):
        reading.event("open")
        before = server.cpu_by_process()
        done = reading.event("done")
        after = server.cpu_by_process()
    used = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)
    return Carried(done["tokens"], used[:workers], done["latency"])  # the others only watch them
