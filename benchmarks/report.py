"""What a benchmark found: a table for the terminal and for Markdown, and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Report:
    """One table. ``name`` is the file's stem; ``chart`` the column that the picture shows as bars, if not each.

    ``notes`` say under which conditions the figures hold, and which target was reached or not.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    chart: int | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        return "\n\n".join([f"### {self.title}", table, *self.notes]) + "\n"


def verdict(target: str, reached: bool, found: str) -> str:
    return f"Target {target}: {'reached' if reached else 'not reached'} ({found})."
