"""The addresses that read: search, batch, get, scan, count, info."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from shadow.config import ServeSettings
from shadow.serve import schemas
from shadow.serve.metrics import HttpMetrics
from shadow.serve.problems import Problem
from vectorstore.errors import ConfigurationError, DeadlineExceeded, InvalidInput
from vectorstore.filters import Filter
from vectorstore.port import VectorStore
from vectorstore.remote import wire
from vectorstore.types import Query as Question

__all__ = ["Embedder", "check_batch", "embedder_of", "json_response", "read_routes", "vector_of"]

SCAN_PAGE_MAX = 1_000


class Embedder(Protocol):
    """Turns texts into vectors, shape (len(texts), dimension)."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """One vector for each text, in order."""


def embedder_of(setting: str | None) -> Embedder | None:
    """The model that the function named in ``module:function`` makes. Raises ConfigurationError."""
    if setting is None:
        return None
    module, _, function = setting.partition(":")
    try:
        made: Embedder = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"serve.embedder names {setting!r}: {error}") from error
    return made


def json_response(values: Any) -> Response:
    """Values as JSON; integers beyond 64 bits stay whole."""
    return Response(wire.encoded(values), media_type="application/json")


def read_routes(
    store: VectorStore,
    *,
    settings: ServeSettings,
    embedder: Embedder | None,
    metrics: HttpMetrics,
) -> APIRouter:
    """The routes over ``store``."""
    routes = APIRouter(prefix="/v1", tags=["read"])

    def question(asked: schemas.SearchRequest, arrived: float) -> Question:
        spent_ms = asked.spent_ms
        if asked.k > settings.k_max:
            raise InvalidInput(f"k is {asked.k}; this proxy answers at most {settings.k_max}")
        if asked.text is not None:
            if embedder is None:
                raise Problem(
                    "unsupported",
                    "searching by text needs an embedding model, and none is configured: set "
                    "serve.embedder, or send a vector",
                )
            began = time.perf_counter()
            vector = np.asarray(embedder.embed([asked.text])[0], dtype=np.float32)
            spent_ms = (spent_ms or 0.0) + (time.perf_counter() - began) * 1e3
        else:
            vector = vector_of(asked)
        return Question(
            vector,
            asked.k,
            _filter(asked.filter),
            min_seq=asked.min_seq,
            timeout_ms=_left_ms(asked.timeout_ms, arrived),
            label=asked.label,
            spent_ms=spent_ms,
        )

    def timed(asked: Question) -> Response:
        began = time.perf_counter()
        answer = store.search(asked)
        metrics.search(answer.store, time.perf_counter() - began)
        return json_response(wire.answer_to_wire(answer))

    @routes.post("/search", response_model=schemas.AnswerOut, summary="Search")
    def search(request: Request, body: schemas.SearchRequest) -> Response:
        """The nearest rows that the filter allows, nearest first."""
        return timed(question(body, request.state.arrived))

    @routes.post(
        "/search/binary", response_model=schemas.AnswerOut, summary="Search with a binary vector"
    )
    def search_binary(
        request: Request,
        body: bytes = Body(
            media_type="application/octet-stream",
            min_length=1,
            description="The vector's float32 values, little-endian.",
        ),
        k: int = Query(10, ge=1, le=1_000),
        filter: str | None = Query(
            None,
            max_length=16_000,
            description="The filter as a JSON object; a longer one goes into the body of `/v1/search`.",
        ),
        min_seq: int = Query(0, ge=0, le=schemas.INTEGER_MAX),
        timeout_ms: float | None = Query(None, ge=1, le=3_600_000),
        label: str | None = Query(None, max_length=100),
    ) -> Response:
        """As `/v1/search`, with the bytes of the vector as the body."""
        if k > settings.k_max:
            raise InvalidInput(f"k is {k}; this proxy answers at most {settings.k_max}")
        return timed(
            Question(
                wire.vector_from_bytes(body),
                k,
                _filter(_object(filter)),
                min_seq=min_seq,
                timeout_ms=_left_ms(timeout_ms, request.state.arrived),
                label=label,
            )
        )

    @routes.post("/search/batch", response_model=schemas.BatchAnswer, summary="Search, in a batch")
    def search_batch(request: Request, body: schemas.BatchRequest) -> Response:
        """Several questions, answered in order by one store; the shortest deadline holds for all."""
        check_batch(len(body.queries), settings)
        asked = [question(one, request.state.arrived) for one in body.queries]
        began = time.perf_counter()
        answers = store.search_many(asked)
        for answer in answers:
            metrics.search(answer.store, (time.perf_counter() - began) / len(answers))
        return json_response({"answers": [wire.answer_to_wire(answer) for answer in answers]})

    @routes.post("/records/get", response_model=schemas.RecordsAnswer, summary="Get by id")
    def get(request: Request, body: schemas.GetRequest) -> Response:
        """The records that exist among the ids, in the order asked."""
        check_batch(len(body.ids), settings)
        left_ms = _left_ms(body.timeout_ms, request.state.arrived)
        found = store.get(body.ids, timeout_ms=left_ms)
        return json_response(
            {"records": [wire.record_to_wire(record, vectors=body.vectors) for record in found]}
        )

    @routes.get("/records", response_model=schemas.RecordsAnswer, summary="Scan a page")
    def scan(
        request: Request,
        after: str = Query("", max_length=512, description="The last id of the page before."),
        limit: int = Query(100, ge=1, le=SCAN_PAGE_MAX),
        vectors: bool = Query(False),
        timeout_ms: float | None = Query(None, ge=1, le=3_600_000),
    ) -> Response:
        """Records whose id follows `after` in byte order; a page that is not full is the last."""
        left_ms = _left_ms(timeout_ms, request.state.arrived)
        found = store.scan(after=after, limit=limit, timeout_ms=left_ms)
        return json_response(
            {"records": [wire.record_to_wire(record, vectors=vectors) for record in found]}
        )

    @routes.post("/count", response_model=schemas.CountAnswer, summary="Count")
    def count(request: Request, body: schemas.CountRequest) -> Response:
        """How many rows there are, or how many the filter matches."""
        left_ms = _left_ms(body.timeout_ms, request.state.arrived)
        return json_response({"count": store.count(_filter(body.filter), timeout_ms=left_ms)})

    @routes.get("/info", response_model=schemas.InfoAnswer, summary="What is held")
    def info(
        request: Request, timeout_ms: float | None = Query(None, ge=1, le=3_600_000)
    ) -> Response:
        """Dimension and metric, and the live settings of the store that answers."""
        left_ms = _left_ms(timeout_ms, request.state.arrived)
        return json_response(
            {
                "name": store.name,
                "dimension": store.dimension,
                "metric": store.metric.value,
                "describe": dict(store.describe(timeout_ms=left_ms)),
            }
        )

    return routes


def vector_of(choice: schemas.VectorChoice) -> npt.NDArray[np.float32]:
    """The vector in whichever form it came."""
    if choice.vector_base64 is not None:
        return wire.vector_from_base64(choice.vector_base64)
    with np.errstate(over="ignore"):
        return np.asarray(choice.vector, dtype=np.float32)


def check_batch(size: int, settings: ServeSettings) -> None:
    """Refuse a request of more items than the settings allow."""
    if size > settings.batch_max:
        raise InvalidInput(
            f"{size:,} items in one request; this proxy takes at most {settings.batch_max:,}: split it"
        )


def _filter(mapping: dict[str, Any] | None) -> Filter | None:
    return None if mapping is None else Filter.of(mapping)


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the filter is not JSON, or nests too deeply") from error
    if not isinstance(found, dict):
        raise InvalidInput("the filter must be a JSON object")
    return found


def _left_ms(timeout_ms: float | None, arrived: float) -> float | None:
    """What is left of the caller's deadline after it waited here."""
    if timeout_ms is None:
        return None
    left_ms = timeout_ms - (time.perf_counter() - arrived) * 1e3
    if left_ms <= 0:
        raise DeadlineExceeded(f"the deadline of {timeout_ms:g} ms passed before the read began")
    return left_ms
