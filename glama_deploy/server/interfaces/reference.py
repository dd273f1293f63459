"""`/docs`: the reference of all interfaces as a page without scripts, made from the OpenAPI description."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

router = APIRouter()

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: reference</title><link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/docs.css"></head>
<body><main><h1>{title} {version}</h1>
<p>{description} Programs read <a href="/openapi.json">openapi.json</a>.</p>{operations}</main></body></html>
"""

#: The style stands in a file of its own, because the content policy does not allow styles in pages.
_STYLE = """:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: auto; padding: 1rem; }
h2 { margin-top: 2.5rem; font-size: 1.1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: 0.5rem 0; }
td { border-top: 1px solid #8886; padding: 0.3rem 0.8rem 0.3rem 0; vertical-align: top; }
"""


@router.get("/docs.css", include_in_schema=False)
async def show_style() -> Response:
    """Show the style of the reference.

    Returns:
        The style sheet.
    """
    return Response(_STYLE, media_type="text/css")


@router.get("/docs", include_in_schema=False)
async def show_reference(request: Request) -> HTMLResponse:
    """Show the reference.

    Args:
        request: the request.

    Returns:
        The page.
    """
    description: dict[str, Any] = request.app.openapi()
    about = description["info"]
    operations = "".join(
        _show_operation(method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    page = _PAGE.format(
        title=escape(about["title"]),
        version=escape(about["version"]),
        description=escape(about["description"]),
        operations=operations,
    )
    return HTMLResponse(page)


def _show_operation(method: str, path: str, operation: dict[str, Any]) -> str:
    summary = f"{operation.get('summary', '')}."
    text = operation.get("description", "").partition("Args:")[0].removeprefix(summary)
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(summary)}</p>"]
    parts.append(f"<p>{escape(text)}</p>")
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        properties = content["schema"].get("properties", {})
        rows = "".join(
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(_describe_field(field))}</td></tr>"
            for name, field in properties.items()
        )
        parts.append(f"<table><caption>{escape(media_type)}</caption><tbody>{rows}</tbody></table>" if rows else "")
    answers = "".join(
        f"<li><code>{escape(status)}</code> {escape(answer.get('description', ''))}</li>"
        for status, answer in operation.get("responses", {}).items()
    )
    return "".join(parts) + f"<ul>{answers}</ul>"


def _describe_field(field: dict[str, Any]) -> str:
    kinds = [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]
    kind = ", ".join(str(value) for each in kinds for value in each.get("enum") or [_name_type(each)])
    default = f" Default: {field['default']}." if "default" in field else ""
    return f"{kind}. {field.get('description', '')}{default}"


def _name_type(field: dict[str, Any]) -> str:
    return str(field.get("format") or field.get("type", "value"))
