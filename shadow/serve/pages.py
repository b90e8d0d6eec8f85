"""The operators' page: rendered here whole, kept live by its script, with no asset from elsewhere."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from shadow.report.html import style_sheet
from shadow.report.markup import Markup, element, join
from shadow.report.words import when
from shadow.serve.panels import panels
from shadow.serve.watch import Look, Watch

__all__ = ["page_routes"]

# One column on the wall; the stores stand in the other.
EVIDENCE = ("gate", "recall", "divergence", "decisions", "worst")


def page_routes(watch: Watch) -> APIRouter:
    """The page, its script and its style."""
    routes = APIRouter(include_in_schema=False)
    style = f"{style_sheet()}\n{_asset('page.css')}"
    script = _asset("page.js")

    @routes.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(_page(watch.look()))

    @routes.get("/static/page.css")
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @routes.get("/static/page.js")
    async def js() -> Response:
        return Response(script, media_type="text/javascript")

    return routes


def _asset(name: str) -> str:
    return resources.files("shadow.serve").joinpath("static", name).read_text(encoding="utf-8")


def _page(look: Look) -> str:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        element("link", rel="icon", href="data:,"),
        element("link", rel="stylesheet", href="/static/page.css"),
        element("title", f"{look.report.verdict.upper()}: {look.report.subject}"),
        element("script", src="/static/page.js", defer="defer"),
    )
    drawn = {name: element("div", html, data_panel=name) for name, html in panels(look).items()}
    main = element(
        "main",
        element("div", drawn.pop("verdict"), drawn.pop("standing"), class_="glance"),
        _control(),
        element(
            "div",
            element("div", *(drawn.pop(name) for name in EVIDENCE)),
            element("div", *drawn.values()),
            class_="columns",
        ),
    )
    body = element(
        "body",
        element("a", "Skip to the decisions", href="#control", class_="skip"),
        _masthead(look),
        main,
        _dialog(),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _masthead(look: Look) -> Markup:
    return element(
        "header",
        element("h1", look.report.subject),
        element(
            "p",
            "From FAISS to PostgreSQL. ",
            element("span", "Seen ", when(look.report.generated_at), id="seen"),
            ". ",
            element("span", "", id="connection", class_="state"),
        ),
        element("p", "", id="news", role="status", aria_live="polite", class_="hidden"),
        element(
            "noscript",
            element("p", "Without its script this page shows one moment and takes no decisions."),
        ),
    )


def _control() -> Markup:
    """The frame of the controls; the script fills in what may be decided."""
    return element(
        "section",
        element("h2", "Control", id="control-title"),
        element(
            "div",
            _field("token", "Control token", "password", autocomplete="off"),
            _field("operator", "Your name, for the audit log", "text", autocomplete="name"),
            class_="fields",
        ),
        element("ul", id="actions", class_="actions"),
        element("p", "", id="outcome", role="alert", class_="outcome"),
        id="control",
        aria_labelledby="control-title",
        tabindex="-1",
    )


def _dialog() -> Markup:
    return element(
        "dialog",
        element(
            "form",
            element("h2", "", id="dialog-title"),
            element("p", "", id="dialog-refused", class_="trouble"),
            element("p", "What will happen:", id="dialog-will-title"),
            element("ul", id="dialog-will"),
            element("div", _field("value", "Share of reads, %", "number"), id="dialog-value"),
            _check("wait", "Keep the wish, and flip as soon as it may"),
            _check("force", "Do it against the verdict; the reason below says why"),
            _check("latch", "Clear the latch of the automatic rollback"),
            _field("why", "Why, for the audit log", "text", required="required"),
            element("p", "", id="dialog-error", role="alert", class_="trouble"),
            element(
                "div",
                element("button", "Cancel", type="button", id="dialog-cancel"),
                element("button", "Confirm", type="submit", id="dialog-confirm", class_="strong"),
                class_="buttons",
            ),
        ),
        id="dialog",
        aria_labelledby="dialog-title",
        aria_describedby="dialog-refused dialog-will-title dialog-will",
    )


def _field(ident: str, title: str, kind: str, **attributes: str) -> Markup:
    return element(
        "label", element("span", title), _void("input", id=ident, type=kind, **attributes)
    )


def _check(ident: str, title: str) -> Markup:
    return element(
        "label",
        join(_void("input", id=f"dialog-{ident}", type="checkbox"), " ", element("span", title)),
        class_="check",
        id=f"dialog-{ident}-label",
    )


def _void(name: str, **attributes: str) -> Markup:
    """An element without an end tag, which `element` would give it."""
    return Markup(str(element(name, **attributes)).removesuffix(f"</{name}>"))
