"""The proxy put together: routes, limits, errors and metrics over one router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from shadow.opening import Migration
from shadow.router import Router
from shadow.serve.control import control_routes
from shadow.serve.description import describe
from shadow.serve.events import event_routes
from shadow.serve.limits import Shell
from shadow.serve.looking import looking_routes
from shadow.serve.metrics import HttpMetrics, MigrationCollector
from shadow.serve.pages import page_routes
from shadow.serve.problems import KINDS, Problem, problem_of, problem_response
from shadow.serve.reads import embedder_of, read_routes
from shadow.serve.security import Callers, Tokens
from shadow.serve.standing import Standing
from shadow.serve.watch import Watch
from shadow.serve.writes import write_routes
from vectorstore.errors import VectorStoreError

__all__ = ["create_app"]

# Threads for looking and deciding, beside those for the requests that are counted.
THREADS_SPARE = 8
KINDS_OF_STATUS = {status: kind for kind, (status, _) in reversed(list(KINDS.items()))}
FOUND_MAX = 20
NO_JSON = (
    "the body cannot be read as JSON: it is not UTF-8, nests too deeply, or holds a number of thousands "
    "of digits"
)
# In place of the validator's own words, which speak of its insides.
WORDS = {
    "extra_forbidden": "there is no such field here",
    "missing": "it is missing",
    "model_attributes_type": "it must be a JSON object",
    "model_type": "it must be a JSON object",
}
DESCRIPTION = (
    "A vector search behind one address, while it moves from FAISS to PostgreSQL. Reads are open; "
    "writes and control need their tokens. Errors are problem details (RFC 9457)."
)


def create_app(migration: Migration, router: Router, *, subject: str = "vector search") -> FastAPI:
    """The ASGI application over a router and its migration; neither is closed here.

    Raises ConfigurationError for tokens or an embedding model that cannot be read.
    """
    settings = migration.settings.serve
    standing, metrics = Standing(), HttpMetrics()
    watch = Watch(migration, subject=subject, age_ms_max=settings.refresh_ms)
    metrics.registry.register(MigrationCollector(watch.look))
    tokens, embedder = Tokens.of(settings), embedder_of(settings.embedder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = settings.concurrency_max + THREADS_SPARE
        watch.start()
        yield
        standing.draining = True
        await asyncio.to_thread(watch.stop)

    app = FastAPI(
        title="shadow-cutover",
        version=version("shadow-cutover"),
        description=DESCRIPTION,
        lifespan=lifespan,
        # The usual pages load their code from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    describe(app, dimension=router.dimension, settings=settings)
    app.state.tokens, app.state.standing = tokens, standing
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(VectorStoreError, _problem)
    app.add_exception_handler(Problem, _problem)
    app.include_router(read_routes(router, settings=settings, embedder=embedder, metrics=metrics))
    app.include_router(write_routes(router, settings=settings))
    app.include_router(control_routes(migration, watch))
    app.include_router(looking_routes(migration, watch, metrics, standing))
    app.include_router(event_routes(watch, standing, settings))
    app.include_router(page_routes(watch))
    app.add_middleware(
        Shell,
        settings=settings,
        callers=Callers.of(settings),
        metrics=metrics,
        standing=standing,
    )
    return app


async def _problem(_: Request, error: Exception) -> Response:
    return problem_response(problem_of(error))


async def _not_valid(_: Request, error: Exception) -> Response:
    """Where the request is wrong and why, without what stood there."""
    assert isinstance(error, RequestValidationError)
    found = [_told(one) for one in error.errors()[:FOUND_MAX]]
    told = "; ".join(f"{one['where']}: {one['what']}" for one in found[:3])
    return problem_response(Problem("invalid-input", told, {"errors": found}))


def _told(one: Mapping[str, Any]) -> dict[str, Any]:
    if one["type"] == "json_invalid":
        return {"where": "body", "what": f"it is no JSON from character {one['loc'][-1]} on"}
    where = ".".join(map(str, one["loc"]))
    return {
        "where": where,
        "what": WORDS.get(one["type"], one["msg"].removeprefix("Value error, ")),
    }


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = KINDS_OF_STATUS.get(error.status_code, "invalid-input")
    if error.status_code == 400:
        return problem_response(Problem("invalid-input", NO_JSON))
    if kind == "not-found":
        return problem_response(Problem(kind, "see /openapi.json for the addresses that there are"))
    if kind != "method-not-allowed":
        return problem_response(Problem(kind, str(error.detail)))
    allowed = _methods_at(request) or (error.headers or {}).get("Allow", "")
    response = problem_response(Problem(kind, f"this address takes {allowed}"))
    response.headers["allow"] = allowed
    return response


def _methods_at(request: Request) -> str:
    """All methods of a described address, as a 405 must name them; the error itself knows only those of
    the first route that fits."""
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            return ", ".join(sorted(method.upper() for method in operations))
    return ""
