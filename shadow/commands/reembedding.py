"""The commands of a change of the model: reembed, and compare-models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shadow.commands.running import (
    BAD_INPUT,
    ConfigOption,
    JsonOption,
    err,
    errors_in_words,
    migration,
    out,
    print_json,
    stop,
)
from vectorstore.errors import InvalidInput

if TYPE_CHECKING:
    from vectorstore.faiss.intake.sides import SideRow

__all__ = ["compare_models", "reembed"]

EmbedderOption = Annotated[
    str, typer.Option("--embedder", help="Entry point (shadow.embedders) of the new model.")
]


def reembed(
    target: Annotated[Path, typer.Argument(help="Folder for the new index and its records.")],
    embedder: EmbedderOption,
    config: ConfigOption = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder or index to take the texts from; default: this migration."),
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Id of a record to leave out; may be repeated.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price-per-million", min=0.0, help="US$ per million tokens, for the estimate."
        ),
    ] = None,
    texts_per_s: Annotated[
        float | None, typer.Option(min=0.01, help="Send no more texts a second than this.")
    ] = None,
    tokens_per_min: Annotated[
        float | None, typer.Option(min=1.0, help="Send no more tokens (estimated) a minute.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: embed, whatever it costs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Embed the texts anew, for an index that keeps no whole vectors or for another model.

    Says what it would cost and asks first. Writes a folder that faiss.path can point to; the source is
    only read. Interrupted or run again, it pays only for texts that are new. Writes of the application
    that come after its start are not in the folder: run it again while they stand still.
    """
    from shadow.embedders import embedder_named
    from shadow.reembedded import ReembeddedTexts
    from shadow.reembedding import PRICES_USD_PER_MILLION, Pace, estimate
    from shadow.reembedding import reembed as run

    records, origin = _records(source, config, frozenset(leave_out or ()))
    with (
        errors_in_words(),
        embedder_named(embedder) as model,
        ReembeddedTexts(target, model=model.model, dimension=model.dimension) as kept,
    ):
        rate = PRICES_USD_PER_MILLION.get(model.model) if price is None else price
        found = estimate(records, kept, price_usd_per_million=rate)
        cost = (
            "unknown (--price-per-million)"
            if found.cost_usd is None
            else f"US$ {found.cost_usd:,.4f}"
        )
        err.print(
            f"{found.records:,} records of {origin}, {found.texts:,} different texts, {found.known:,} "
            f"embedded already; {model.model} ({model.dimension} dimensions): about {found.tokens:,} "
            f"tokens, cost about {cost}. Both are estimates; check your provider's price",
            markup=False,
        )
        if found.known < found.texts and not yes and not typer.confirm("Embed them?", err=True):
            stop("nothing was sent", code=BAD_INPUT)
        run(
            records,
            target=target,
            kept=kept,
            embedder=model,
            source=origin,
            pace=Pace(
                texts_per_s=texts_per_s or math.inf, tokens_per_min=tokens_per_min or math.inf
            ),
            on_done=lambda done: err.print(f"{done:,} of {found.texts - found.known:,} texts"),
        )
        if as_json:
            print_json({"target": str(target), "model": model.model, "dimension": model.dimension,
                        "records": found.records, "embedded": found.texts - found.known,
                        "tokens_estimated": found.tokens, "cost_usd_estimated": found.cost_usd})  # fmt: skip
            return
        out.print(
            f"{target} holds {found.records:,} records. To migrate it, give it a state_directory and a "
            f"postgresql.table of its own, and set:\n  embedding_model = {json.dumps(model.model)}\n"
            f"  [faiss]\n  path = {json.dumps(str(target))}",
            markup=False,
        )


def compare_models(
    file: Annotated[Path, typer.Argument(help="Questions: .jsonl with text on each line.")],
    reference: Annotated[
        Path, typer.Option(help="Folder or index with the vectors of the other model; any kind.")
    ],
    reference_embedder: Annotated[
        str, typer.Option(help="Entry point of the model that made the reference's vectors.")
    ],
    embedder: EmbedderOption,
    config: ConfigOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Hits compared.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Ask this migration's PostgreSQL and an index of another model the same questions, in words.

    Each side embeds them with its own model. The vectors differ by design, so what is reported is
    agreement: no recall, no verdict, and no evidence for the gate. For that, use replay with the new
    model. Filters of the questions are not applied.
    """
    from shadow.agreement import BY_DESIGN, agreement
    from shadow.embedders import embedder_named
    from shadow.replay import questions_of_file
    from vectorstore.faiss.intake.texts import open_reference
    from vectorstore.types import Query

    with (
        migration(config) as opened,
        embedder_named(embedder) as ours,
        embedder_named(reference_embedder) as theirs,
    ):
        questions = questions_of_file(file)
        other = open_reference(reference)
        for name, wanted, model in (
            ("this migration", opened.dimension, ours),
            (str(reference), other.dimension, theirs),
        ):
            if wanted != model.dimension:
                raise InvalidInput(
                    f"{name} has {wanted} dimensions and {model.model} gives {model.dimension}: name "
                    "the model that made its vectors"
                )
        store = opened.link.open()
        answers = store.search_many([Query(vector, k) for vector in ours.embed(questions)])
        found = agreement(
            questions,
            [[hit.id for hit in answer.hits] for answer in answers],
            other.nearest(theirs.embed(questions), k),
        )
        models = {"model": ours.model, "reference_model": theirs.model}
    if as_json:
        print_json({**models, "k": k, **found.facts()})
        return
    out.print(
        f"{found.queries:,} questions, {k} hits each, {ours.model} against {theirs.model}: "
        f"{found.shared:.1%} of the hits in common, the same nearest record for {found.top:.1%}, all in "
        f"common for {found.same:,}, none for {found.disjoint:,}",
        markup=False,
    )
    for query, share in found.least:
        out.print(f"  {share:.0%}: {query}", markup=False)
    out.print(BY_DESIGN, markup=False)


def _records(
    source: Path | None, config: Path | None, leave_out: frozenset[str]
) -> tuple[list[SideRow], str]:
    from shadow.reembedding import texts_of_store
    from vectorstore.faiss.intake.texts import read_texts

    if source is not None:
        with errors_in_words():
            return read_texts(source, leave_out=leave_out), str(source)
    with migration(config) as opened:
        follower = opened.load_faiss()
        records = [one for one in texts_of_store(follower.store) if one.id not in leave_out]
        empty = [one.id for one in records if not one.text.strip()]
        if empty:
            raise InvalidInput(
                f"{len(empty):,} records have no text that could be embedded ({', '.join(empty[:10])}): "
                "leave them out by id (--leave-out)"
            )
        return records, f"{opened.directory} as of write {follower.store.applied_seq()}"
