"""The addresses that decide: cutover, rollback, ramp, rehearse, finalize, mirror rate."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from shadow import decisions
from shadow.events import EventLog
from shadow.opening import Migration
from shadow.serve import control_schemas as schemas
from shadow.serve.reads import json_response
from shadow.serve.security import control_allowed
from shadow.serve.watch import Watch

__all__ = ["control_routes"]

log = EventLog("shadow.serve")


def control_routes(migration: Migration, watch: Watch) -> APIRouter:
    """The routes over ``migration``. Every one needs the control token and the route's version."""
    routes = APIRouter(
        prefix="/v1/control", tags=["control"], dependencies=[Depends(control_allowed)]
    )

    def standing(waiting_for: tuple[str, ...] = (), **result: Any) -> Response:
        route = migration.routes.current()
        watch.look(fresh=True)
        return json_response(
            {
                "phase": route.phase.value,
                "primary": route.primary,
                "route_version": route.version,
                "waiting_for": list(waiting_for),
                "result": result or None,
            }
        )

    def who(request: Request, body: schemas.DecisionRequest) -> str:
        client = request.client.host if request.client else "an unknown address"
        log.info("decision", route=request.scope["route"].path, client=client)
        return f"{body.operator.strip() or 'an operator'} (over HTTP from {client})"

    @routes.post("/cutover", response_model=schemas.StandingAnswer, summary="Flip to PostgreSQL")
    def cutover(request: Request, body: schemas.CutoverRequest) -> Response:
        """Make PostgreSQL the primary; 409 with what is missing, unless told to wait for it."""
        waiting = decisions.cutover(
            migration,
            who=who(request, body),
            why=body.why,
            force=body.force,
            wait=body.wait,
            expected_version=body.route_version,
        )
        return standing(waiting)

    @routes.post("/rollback", response_model=schemas.StandingAnswer, summary="Back to FAISS")
    def rollback(request: Request, body: schemas.RollbackRequest) -> Response:
        """Make FAISS the primary again. Nothing is lost: it followed every write."""
        waiting = decisions.rollback(
            migration,
            who=who(request, body),
            why=body.why,
            clear_latch=body.clear_latch,
            expected_version=body.route_version,
        )
        return standing(waiting)

    @routes.post("/ramp", response_model=schemas.StandingAnswer, summary="Ramp")
    def ramp(request: Request, body: schemas.RampRequest) -> Response:
        """Let PostgreSQL answer a share of the reads."""
        decisions.ramp(
            migration,
            body.share,
            who=who(request, body),
            why=body.why,
            force=body.force,
            expected_version=body.route_version,
        )
        return standing()

    @routes.post("/rehearse", response_model=schemas.StandingAnswer, summary="Rehearse")
    def rehearse(request: Request, body: schemas.DecisionRequest) -> Response:
        """Flip for two seconds and back, timed; answered when it is over."""
        found = decisions.rehearse(
            migration, who=who(request, body), expected_version=body.route_version
        )
        return standing(
            ok=found.ok,
            flip_ms=found.flip_ms,
            back_ms=found.back_ms,
            held_s=found.held_s,
            why=found.why,
        )

    @routes.post("/finalize", response_model=schemas.StandingAnswer, summary="Finalize")
    def finalize(request: Request, body: schemas.DecisionRequest) -> Response:
        """End the migration for good."""
        archive = decisions.finalize(
            migration,
            who=who(request, body),
            why=body.why,
            expected_version=body.route_version,
        )
        return standing(archive=str(archive))

    @routes.post("/mirror-rate", response_model=schemas.StandingAnswer, summary="Mirror rate")
    def mirror_rate(request: Request, body: schemas.MirrorRateRequest) -> Response:
        """Mirror this share of the queries from now on."""
        decisions.set_mirror_rate(
            migration,
            body.rate,
            who=who(request, body),
            why=body.why,
            expected_version=body.route_version,
        )
        return standing()

    return routes
