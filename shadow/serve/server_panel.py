"""The part of the page that shows PostgreSQL's own figures, with what they suggest."""

from __future__ import annotations

from shadow.report import sections, words
from shadow.report.markup import Markup, element
from shadow.report.tables import Column, Table
from shadow.serve.watch import Look

__all__ = ["server_panel"]


def server_panel(look: Look) -> Markup:
    """Sizes, growth, dead rows, cache, connections, our statements, and what to change."""
    from vectorstore.postgres.monitoring import hints

    seen = look.server
    if seen is None:
        return sections.section(
            "PostgreSQL server", element("p", "PostgreSQL has not been looked at.", class_="note")
        )
    growth = look.growth_bytes_per_h
    pool = look.pool
    figures = (
        ("Table", _megabytes(seen.table_bytes)),
        ("Indexes", f"{_megabytes(seen.indexes_bytes)}, "
                    f"of which vectors {_megabytes(seen.vector_index_bytes)}"),
        ("Growth", "not yet known" if growth is None else f"{growth / 1e6:+,.1f} MB an hour"),
        ("Rows", f"about {seen.live_rows:,}, and {seen.dead_rows:,} dead"),
        ("Rows written", f"{seen.rows_inserted:,} inserted, {seen.rows_updated:,} updated, "
                         f"{seen.rows_deleted:,} deleted since the server's statistics began"),
        ("Last vacuum", "never" if seen.vacuum_age_s is None
         else f"{words.age(seen.vacuum_age_s)} ago"),
        ("Cache hits", words.percent(seen.cache_hit_share)),
        ("Connections", f"{seen.connections:,} of {seen.connections_max:,}"),
        ("Pool of this proxy", f"{pool.get('lent', 0)} in use, {pool.get('size', 0)} open, "
                               f"{pool.get('size_max', 0)} at most, {pool.get('waiting', 0)} waiting"),
    )  # fmt: skip
    statements = (
        Table(
            "Our statements, by pg_stat_statements",
            (
                Column("statement"),
                Column("calls", numeric=True),
                Column("mean", numeric=True),
                Column("longest", numeric=True),
            ),
            tuple(
                (
                    one.text,
                    f"{one.calls:,}",
                    words.milliseconds(one.mean_ms),
                    words.milliseconds(one.max_ms),
                )
                for one in seen.statements
            ),
        )
        if seen.statements is not None
        else None
    )
    advice = [element("li", hint) for hint in hints(seen)]
    return sections.section(
        "PostgreSQL server",
        sections.table(
            Table("The server and our table", (Column("figure"), Column("value")), figures),
            kind="compact",
        ),
        element("ul", *advice, class_="hints") if advice else "",
        sections.table(statements, kind="stack")
        if statements is not None
        else element(
            "p", f"Our statements are not counted: {seen.statements_absent}.", class_="note"
        ),
    )


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"
