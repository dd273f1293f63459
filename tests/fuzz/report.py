"""Tables in Markdown, as benchmarks/RESULTS-RELIABILITY.md holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers stand at the right."""
    filled = [[str(cell) for cell in row] for row in rows]
    right = [bool(filled) and all(row[n][:1].isdigit() for row in filled) for n in range(len(columns))]
    lines = [columns, ["---:" if side else "---" for side in right], *filled]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
