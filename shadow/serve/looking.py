"""The addresses that look: status, report, metrics, health."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from shadow.core.phases import Phase
from shadow.opening import Migration
from shadow.report import render_html, to_json
from shadow.report.html import report_policy
from shadow.report.model import ParityReport
from shadow.serve.facts import json_status
from shadow.serve.metrics import HttpMetrics
from shadow.serve.problems import KINDS, Problem
from shadow.serve.reads import json_response
from shadow.serve.standing import Standing
from shadow.serve.status_schema import StatusAnswer
from shadow.serve.watch import Watch

__all__ = ["looking_routes"]


def looking_routes(
    migration: Migration, watch: Watch, metrics: HttpMetrics, standing: Standing
) -> APIRouter:
    """The routes over what ``watch`` sees."""
    routes = APIRouter(tags=["look"])

    @routes.get("/v1/status", response_model=StatusAnswer, summary="Status")
    def status() -> Response:
        """Phase, wish, verdict, stores, lag, journal, evidence, what may be decided."""
        return json_response(json_status(watch.look()))

    @routes.get("/v1/report", response_model=ParityReport, summary="Parity report")
    def report() -> Response:
        """The parity report as JSON."""
        return Response(to_json(watch.look().report), media_type="application/json")

    @routes.get("/report", summary="Parity report as a page", include_in_schema=False)
    def report_page() -> HTMLResponse:
        """The parity report as one page."""
        # Its one style sheet stands in the page, so its policy is its own.
        return HTMLResponse(
            render_html(watch.look().report),
            headers={"content-security-policy": f"{report_policy()}; frame-ancestors 'none'"},
        )

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    def scrape() -> Response:
        """All metrics in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/healthz", summary="Alive", response_class=PlainTextResponse)
    async def healthz() -> PlainTextResponse:
        """Whether the process answers at all."""
        return PlainTextResponse("alive\n")

    # In a thread: the route is behind a lock that a decision holds while it waits for the journal.
    @routes.get("/readyz", summary="Ready", response_class=PlainTextResponse)
    def readyz() -> PlainTextResponse:
        """Whether it should be sent requests: not while draining, nor without a store."""
        if standing.draining:
            raise Problem("draining", "the proxy is stopping")
        final = migration.routes.current().phase is Phase.FINAL
        if final and not migration.postgresql.standing.following:
            raise Problem("unavailable", "PostgreSQL answers alone, and it cannot be reached")
        return PlainTextResponse("ready\n")

    @routes.get("/problems/{kind}", summary="A kind of problem", response_class=PlainTextResponse)
    async def problem(kind: str) -> PlainTextResponse:
        """What a problem's `type` stands for."""
        if kind not in KINDS:
            raise Problem("not-found", "there is no such kind of problem")
        status, title = KINDS[kind]
        return PlainTextResponse(f"{kind} (status {status}): {title}.\n")

    return routes
