"""``docs/performance.md``: tables from a run, and what bounds the figures in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.bounds import missed
from benchmarks.results import Figure, Reading, Results

__all__ = ["write_document"]

TITLES = {
    "reads": "Reads: both stores and the router",
    "mirror": "The router and the mirror",
    "wire": "PostgreSQL reads against their floors and the naive ways",
    "crossing": "Where an index begins to pay",
    "backfill": "Backfill",
    "writes": "Writes",
    "verify": "Verify",
    "gate": "The gate",
    "end to end": "A question end to end",
    "start": "Start",
    "growth": "Growth",
}

BOUNDS = {
    "reads": (
        "A flat FAISS search is one pass over the rows in memory: dimensions times rows times four "
        "bytes, at the speed of the memory and of one core's vector unit. Exact search in PostgreSQL "
        "makes the same pass and pays for each row's tuple header, visibility check and function "
        "call, about a fifth of a microsecond beside the arithmetic, and once per query for a round "
        "trip between two processes. The router adds a few attribute reads, no lock and no I/O."
    ),
    "mirror": (
        "Python runs one thread at a time: while the mirror's thread holds the interpreter, a reader "
        "waits for it. The caller pays for a draw and, if it is sampled, a copy of the vector and a "
        "queue append; the rest is bounded by `mirror.cpu_share_max`, of which a busy process gives only "
        "a tenth. The thread gathers sixteen queries, or those of a quarter of a second, so that one "
        "wake-up and one transaction serve many. When it has taken a twentieth of a core for three "
        "seconds, a process of its own asks PostgreSQL in its stead (`mirror.own_process`; the rows "
        "*from a thread* are without it), and only comparing and counting are left in the reader's "
        "process. In the closed loop half the blocks are without the mirror, so its budget is half of the "
        "default: while it is on it takes what the default allows. What remains at the 99th percentile on two cores is the processor time of the server "
        "and of that process beside the reader: a server on the same machine is not free. *The call "
        "alone* leaves out how late the application itself came to make the call; a user waits for "
        "both. While the shadow hangs, nothing runs beside the reader, and the percentile is that of the "
        "mirror switched off."
    ),
    "wire": (
        "The floor is the server's execution time. How far above it raw psycopg lies (its own row) is "
        "the round trip: where waking another process is dear, as in a virtual machine, it alone is more "
        "than the third that is asked for, whatever the client does. Above the floor lie one round trip "
        "(two context switches and a socket), the vector as binary (2 us), ten rows decoded (text and "
        "JSON, the larger part), the pool, and the deadline that is kept on the socket. Vectors that stay "
        "in the row save a look-up and a copy per row; a vector as text costs its printing and its "
        "parsing, and a connection costs a process on the server. The rows without a target bound "
        "those that have one: *server execution time, default storage* over the same with the vectors in "
        "the row is what a client could gain by storage that took no time of its own, and the naive ways "
        "over *raw psycopg* are what one could gain that took no more time than that."
    ),
    "backfill": (
        "One backend's COPY is bound by the server: WAL, index entries (primary key, GIN, hash) and "
        "page writes. The client reads rows from a mapped snapshot and needs about a fifth of that in "
        "processor time, which overlaps with the server where a core is free. Blocks are committed "
        "without waiting for the disk (their progress is in the same transaction), so one worker may "
        "come out above the server's own COPY, which waits once for all of its log at the end. Two "
        "workers need three free cores to reach their best; on two, four busy processes share them "
        "(*cores busy*, the start of the workers included). "
        "The loader's processes run at a lower priority, so where other work fills the machine they, "
        "unlike the server's COPY, are the ones that wait. The server's own part cannot be given a "
        "priority from outside: on a machine that is shared with it, `--p99-ms-max` is what protects "
        "the primary, at the rate shown."
    ),
    "writes": (
        "An acknowledgement is one fdatasync: the disk bounds it. The journal is an SQLite file, so the "
        "rows *SQLite alone* are as low as it can come: the same rows in a transaction of the bare "
        "driver, which writes each page into its log with a checksum. On a disk that syncs in a "
        "tenth of a millisecond this alone is above what a batch should take, and on a slower disk all "
        "of it counts for less. What threads write at once shares one commit, and one of them brings all "
        "of it to the stores. With PostgreSQL answering, a writer also waits for its own row's commit "
        "there: two durable commits, one after the other, are what reading one's own write from the "
        "other store costs (*bare SQLite, then PostgreSQL* is that and nothing else). Writes are measured "
        "in a thread, as a service makes them; what the main thread of a process writes is handed to "
        "another thread, so that no handler of a signal can break it off halfway, and costs that much "
        "more (*in the main thread*). FAISS overwrites a "
        "row where it lies, whatever the size of the index."
    ),
    "crossing": (
        "An exact search reads every row; an HNSW search reads some hundreds, however many there are, and "
        "may miss one. Up to `postgresql.exact_rows_max` (1,000) the router builds no index: there the "
        "difference is about a millisecond at most, the answer is perfect, and a write keeps no graph."
    ),
    "verify": (
        "Both halves run at the same time: the server digests the next ranges in two connections "
        "while this process digests one. Most of the server's part is turning each vector into its "
        "wire form, which SQL cannot go without (its own row above); the client does the "
        "same to its own and writes metadata as canonical text. On two cores the whole cannot take "
        "less than half the sum of *server digests, one connection* and *FAISS digests alone*, which "
        "is what bounds it; with more cores, or the server elsewhere, it is half of the server's part, or "
        "the client's whole. Comparing by text costs the server its printing and the client the same "
        "printing again, in Python; so the whole is held against the whole, the server's part against the "
        "server's, and the whole against what the server alone takes for its text. (*one process* is without the parallel workers that the server may take for it.) "
        "crc32c finds accidents, not forgery: sha256 is "
        "there for that, at its price."
    ),
    "gate": (
        "The gate's state is the number of times that each value of a figure was seen: at most k + 1 "
        "numbers a figure, whatever the traffic. It is read by one query and bisected; nothing is "
        "scanned again."
    ),
    "end to end": "The embedding bounds it: several milliseconds offline, tens to hundreds by network.",
    "start": (
        "The command line imports no store and no model before a command needs one: half of what is "
        "left is the interpreter and typer. Opening an index reads every byte twice, once for its "
        "sha256 and once into memory, parses a line of JSON per record and looks at the length of "
        "each vector. Beyond index and texts a record costs about 500 bytes: its metadata as a "
        "dictionary, its id, and the way from the id to its position."
    ),
    "growth": (
        "Exact search is proportional to rows and to dimensions once the constant part of a query is "
        "small beside it: about 10 us in FAISS and 100 to 200 us over a wire, which is why the "
        "exponents of small sizes lie below 1. k costs little until rows are carried to the client: "
        "there PostgreSQL sends text and metadata and FAISS copies a small dictionary for each. The router's own time "
        "is what its code takes, and nothing in it depends on the rows; but a scan that is larger than "
        "the processor's caches leaves that code to be fetched from memory anew, which is why it takes "
        "microseconds more beside a scan of milliseconds."
    ),
}


UNBOUNDED = "No other figure bounds it; its quartiles tell how sure it is"


def write_document(results: Results, path: Path) -> None:
    """Write the page from one run."""
    parts = [
        "# Performance",
        "",
        "Made by `python -m benchmarks.run --write-docs`; do not edit the tables. `make bench` measures "
        "the same in under ten minutes on two cores, `make bench-full` at larger sizes, in an hour. Absolute times "
        "belong to the machine below. Ratios are medians over rounds in which the sides alternated in "
        "one run, with quartiles: those are what to compare.",
        "",
        _environment(results),
        _answer(results),
    ]
    for part, title in TITLES.items():
        section = _section(results, part)
        if section:
            parts += [f"## {title}", "", *section, "", BOUNDS[part], ""]
    parts += [_method()]
    path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _section(results: Results, part: str) -> list[str]:
    lines: list[str] = []
    readings = [reading for reading in results.readings if reading.part == part]
    for name, group in groupby(readings, key=lambda reading: reading.dataset):
        lines += [f"**{name}**", "", *_readings(list(group)), ""]
    if part == "growth":
        lines += [*_growth(results), ""]
    figures = [figure for figure in results.figures if figure.part == part]
    if figures:
        lines += [*_figures(figures), *_missed(figures)]
    return lines


def _missed(figures: Sequence[Figure]) -> list[str]:
    """For each target that was missed, what bounds it."""
    lines = [
        f"- {figure.name}: {_value(figure, figure.value)}. "
        + ("; ".join(f"*{one.name}* is {_value(one, one.value)}" for one in bounds) or UNBOUNDED)
        + "."
        for figure, bounds in missed(figures)
    ]
    return ["", "Not met, and the figures that bound it:", "", *lines] if lines else []


def _readings(readings: Sequence[Reading]) -> list[str]:
    shows_recall = any(reading.recall is not None for reading in readings)
    rows = [
        (
            reading.side,
            _us(reading.p50_us),
            _us(reading.p99_us),
            f"{reading.per_s:,.0f}",
            *(("" if reading.recall is None else f"{reading.recall:.4f}",) if shows_recall else ()),
        )
        for reading in readings
    ]
    heads = ("side", "p50, us", "p99, us", "per second", *(("recall@10",) if shows_recall else ()))
    return _table(heads, rows, right=range(1, len(heads)))


def _figures(figures: Sequence[Figure]) -> list[str]:
    rows = [
        (
            figure.name,
            _value(figure, figure.value),
            ""
            if figure.low is None or figure.high is None
            else f"{_short(figure.low)} to {_short(figure.high)}",
            figure.target or "",
            {None: "", True: "yes", False: "**no**"}[figure.met],
        )
        for figure in figures
    ]
    return _table(("figure", "found", "quartiles", "target", "met"), rows, right=(1, 2))


def _growth(results: Results) -> list[str]:
    rows = [
        (
            one["over"],
            one["side"],
            ", ".join(f"{x:g}: {_us(us)}" for x, us in zip(one["x"], one["us"], strict=True)),
            "" if one["exponent"] is None else f"{one['exponent']:.2f}",
        )
        for one in results.growth
    ]
    return _table(("over", "side", "us", "exponent"), rows, right=(3,)) if rows else []


def _environment(results: Results) -> str:
    facts = results.environment
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    server = ", ".join(f"{name} {value}" for name, value in facts["server_settings"].items())
    return (
        f"Measured by `{facts['run']}` {facts['at']} on {facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory_gb']} GB, {facts['system']}; Python {facts['python']}; {packages}; "
        f"PostgreSQL {facts['postgresql']} with pgvector {facts['pgvector']} ({server}), over TCP on "
        f"the same machine. Load before the run: {facts['load_1min_at_start']}. "
        f"Seeds: {facts['seeds']}.\n"
    )


def _answer(results: Results) -> str:
    """Is PostgreSQL as fast as FAISS? With the run's own numbers."""
    lines = [
        "## Is PostgreSQL as fast as FAISS?",
        "",
        "Not with the same kind of search, and for most applications it does not matter. FAISS answers "
        "from the caller's own memory; PostgreSQL answers from another process, with durability, "
        "transactions, filters and every replica of the application seeing the same rows. Against a flat "
        "FAISS index, which is what many applications run, its HNSW index wins as soon as the rows are "
        "thousands. What a query takes at each size:",
        "",
    ]
    reads = [reading for reading in results.readings if reading.part == "reads"]
    rows = []
    for name, group in groupby(reads, key=lambda reading: reading.dataset):
        by_side = {reading.side: reading for reading in group}
        ours, theirs = by_side.get("FaissStore"), by_side.get("PostgresStore")
        if ours is None or theirs is None:
            continue
        graph = by_side.get("FaissStore, HNSW")
        rows.append(
            (
                name,
                _us(ours.p50_us),
                "" if graph is None else _us(graph.p50_us),
                _us(theirs.p50_us),
                f"{theirs.recall or 0:.4f}",
                f"{theirs.p50_us / ours.p50_us:.2g}x",
                f"{(theirs.p50_us - ours.p50_us) / 1e3:+.2f} ms",
            )
        )
    heads = ("data", "FAISS flat, us", "FAISS HNSW, us", "PostgreSQL, us", "recall@10",
             "PostgreSQL / flat", "difference")  # fmt: skip
    lines += _table(heads, rows, right=range(1, 7))
    asked = {r.side: r for r in results.readings if r.part == "end to end"}
    if "embedding + FAISS" in asked and "embedding + PostgreSQL" in asked:
        one, other = asked["embedding + FAISS"].p50_us, asked["embedding + PostgreSQL"].p50_us
        lines += [
            "",
            "Up to 1,000 rows PostgreSQL searches exactly; above that it uses an HNSW index, which is "
            "why it overtakes a flat FAISS index as the rows grow, at the recall shown. "
            f"End to end a question has to be embedded first: {one / 1e3:.1f} ms with FAISS, "
            f"{other / 1e3:.1f} ms with PostgreSQL ({other / one:.2f}x) with the small offline model, "
            "and with a model behind a network the difference is lost in its variation.",
        ]
    return "\n".join([*lines, ""])


def _method() -> str:
    return (
        "## How it is measured\n\n"
        "`benchmarks/interleave.py` runs the sides in turn in short blocks; a ratio is taken between "
        "blocks that ran one after the other. `benchmarks/datasets.py` states how rows are made around "
        "real-text embeddings. Recall is worked out from the data, not from the stores' scores, and a "
        "run in which a store answers wrongly ends with an error whatever its speed. A run can be held "
        "against an earlier one: `python -m benchmarks.run --compare benchmarks/results/FILE.json` "
        "calls a figure worse only if it moved by more than three standard errors and 3 %."
    )


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()
) -> list[str]:
    ends = set(right)
    rule = ["---:" if number in ends else "---" for number in range(len(heads))]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def _us(us: float) -> str:
    return f"{us:,.1f}" if us < 100 else f"{us:,.0f}"


def _value(figure: Figure, value: float) -> str:
    return f"{_short(value)}x" if figure.unit == "x" else f"{_short(value)} {figure.unit}"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
