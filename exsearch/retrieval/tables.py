"""Indexes, estimates and results as tables for a terminal. Passages are shown as data:
no markup in them is obeyed, and no control character reaches the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from exsearch.records import Passage
from exsearch.retrieval.estimates import Estimate
from exsearch.retrieval.info import IndexInfo


def _facts(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} TB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} days"


def index_table(info: IndexInfo, folder: str) -> Table:
    """A finished index."""
    return _facts(
        f"index {folder}",
        [
            ("digest", info.digest),
            ("passages", f"{info.passages:,}"),
            ("vectors", f"{info.vectors:,}"),
            ("centroids", f"{info.centroids:,}"),
            ("on disk", f"{size(info.bytes)} ({info.bytes / info.passages:.0f} B per passage)"),
            ("checkpoint", f"{info.checkpoint} {info.checkpoint_path}"),
        ],
    )


def estimate_table(found: Estimate) -> Table:
    """What an index will take."""
    return _facts(
        f"estimate for {found.passages:,} passages, from {found.sample} encoded on {found.device}",
        [
            ("encoding speed", f"{found.sample_passages_per_second:.1f} passages/s"),
            ("vectors", f"{found.vectors:,} ({found.vectors_per_passage:.1f} per passage)"),
            ("centroids", f"{found.centroids:,}"),
            ("shards", f"{found.shards:,}"),
            ("time to encode", duration(found.encode_seconds)),
            ("time for k-means", duration(found.kmeans_seconds)),
            ("time to compress", duration(found.compress_seconds)),
            ("time in all", duration(found.total_seconds)),
            (
                "index on disk",
                f"{size(found.index_bytes)} ({found.index_bytes_per_passage:,.0f} B per passage)",
            ),
            ("disk at the peak of the build", size(found.peak_disk_bytes)),
            ("memory of the build", f"1 GB and {size(found.build_memory_bytes)}"),
            ("memory of a search", f"1 GB and {size(found.search_memory_bytes)}"),
        ],
    )


def results_table(query: str, found: list[Passage], words: int = 40) -> Table:
    """Passages found, best first, each cut to so many words."""
    table = Table(title=Text(shown(query)), title_justify="left", show_lines=True)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("id", overflow="fold")
    table.add_column("passage", overflow="fold")
    for rank, passage in enumerate(found, 1):
        parts = passage.text.split()
        text = " ".join(parts[:words]) + (" …" if len(parts) > words else "")
        body = Text(shown(passage.title), style="bold").append(f"\n{shown(text)}", style="not bold")
        table.add_row(str(rank), f"{passage.score or 0.0:.2f}", Text(shown(passage.pid)), body)
    return table


def shown(text: str) -> str:
    """Text without what would steer a terminal (escape sequences, direction marks)."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text[:5000])
