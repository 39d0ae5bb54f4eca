"""The try-out page: one HTML file with its style and script, and the sample pictures."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_FOLDER = Path(__file__).parent
#: A link to the folder at the root of the checkout; a wheel has the pictures themselves.
SAMPLES = _FOLDER / "samples"

# The page may reach this server and nothing else. Style and script stand in the file itself, which
# never holds what a caller sent.
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """Serves the page at `/` and the pictures under `/samples/`."""
    html = (_FOLDER / "page.html").read_text("utf-8")
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    router = APIRouter(include_in_schema=False)

    @router.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    app.include_router(router)
    app.mount("/samples", StaticFiles(directory=SAMPLES))
