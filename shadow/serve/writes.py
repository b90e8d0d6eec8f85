"""The addresses that write: upsert and delete, acknowledged when they are durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter, Depends
from starlette.responses import Response

from shadow.config import ServeSettings
from shadow.serve import schemas
from shadow.serve.reads import check_batch, json_response, vector_of
from shadow.serve.security import write_allowed
from vectorstore.types import Record

__all__ = ["IdempotentWrites", "write_routes"]


class IdempotentWrites(Protocol):
    """Writes that may be retried under an operation id."""

    def upsert(self, records: Sequence[Record], *, op_id: str | None = None) -> int:
        """Insert or replace."""

    def delete(self, ids: Sequence[str], *, op_id: str | None = None) -> int:
        """Remove."""


def write_routes(store: IdempotentWrites, *, settings: ServeSettings) -> APIRouter:
    """The routes over ``store``."""
    routes = APIRouter(prefix="/v1", tags=["write"], dependencies=[Depends(write_allowed)])

    @routes.post("/records", response_model=schemas.WriteAnswer, summary="Upsert")
    def upsert(body: schemas.UpsertRequest) -> Response:
        """Insert or replace by id, all or none; answered when the write is durable."""
        check_batch(len(body.records), settings)
        records = [Record(one.id, vector_of(one), one.text, one.metadata) for one in body.records]
        return json_response({"seq": store.upsert(records, op_id=body.op_id)})

    @routes.post("/records/delete", response_model=schemas.WriteAnswer, summary="Delete")
    def delete(body: schemas.DeleteRequest) -> Response:
        """Remove by id, all or none; an id that is not there is no error."""
        check_batch(len(body.ids), settings)
        return json_response({"seq": store.delete(body.ids, op_id=body.op_id)})

    return routes
