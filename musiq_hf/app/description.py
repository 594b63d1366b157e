# SPDX-License-Identifier: Apache-2.0
"""Description of the HTTP route: as OpenAPI for programs, and as a page that loads nothing from elsewhere."""

import html
from typing import Any

from ..version import __version__
from .access import SCHEMA, SCORE
from .service import Service
from .settings import FILES_OF_FULL_SIZE, MAX_FILES, ServeSettings

TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": ["integer", "null"]}, {"type": ["number", "null"]}
COLUMNS: dict[str, dict[str, Any]] = {
    "key": {**TEXT, "description": "Name of the file."},
    "width": {**WHOLE, "description": "Columns of the picture, upright, in pixels."},
    "height": {**WHOLE, "description": "Rows of the picture, upright, in pixels."},
    "score": {**NUMBER, "description": "Score in the unit of the checkpoint's opinion scores; higher is better."},
    "score_0_1": {**NUMBER, "description": "Position of the score in the checkpoint's range, from 0 to 1."},
    "std": {**NUMBER, "description": "Standard deviation of the opinions, of checkpoints that predict it."},
    "model": {**TEXT, "description": "Name of the checkpoint."},
    "signature": {**TEXT, "description": "What the score is made with; equal signatures make scores comparable."},
    "error": {"type": ["string", "null"], "description": "Why there is no score; null if there is one."},
    "percentile": {**NUMBER, "description": "Place among the photographs of the calibration, from 0 to 100."},
    "stars": {**WHOLE, "description": "Fifth of these photographs among which the score is, from 1 to 5."},
}
STATUSES = {
    "400": "A field is unknown or missing, or the form cannot be read.",
    "408": "The request did not come in time.",
    "413": "A file or the request is too large.",
    "415": "The request is no form.",
    "503": "Too many requests wait. Try again after the seconds in Retry-After.",
}


def _list_columns(service: Service) -> dict[str, dict[str, Any]]:
    """List the columns that rows of these checkpoints can have."""
    found = {column for checkpoint in service.checkpoints.values() for column in checkpoint.columns}
    return {name: column for name, column in COLUMNS.items() if name in found}


def _describe_limits(service: Service, settings: ServeSettings) -> str:
    return (
        f"At most {MAX_FILES} files of {settings.max_megabytes} megabytes and {service.max_megapixels:g} megapixels "
        f"each, and {FILES_OF_FULL_SIZE * settings.max_megabytes} megabytes in all."
    )


def describe_route(service: Service, settings: ServeSettings) -> dict[str, Any]:
    """Describe the route as an OpenAPI document."""

    def refer(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    columns = _list_columns(service)
    form = {
        "type": "object",
        "required": ["files"],
        "additionalProperties": False,
        "properties": {
            "files": {"type": "array", "maxItems": MAX_FILES, "items": {**TEXT, "format": "binary"}},
            "model": {**TEXT, "enum": list(service.checkpoints), "default": service.find().name},
        },
    }
    operation = {
        "operationId": "score",
        "summary": "Score pictures",
        "description": "A picture that cannot be read or scored is a row with its error. "
        + _describe_limits(service, settings),
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {
            "200": {"description": "A row for each file, in their order.", "content": refer("Rows")},
            **{status: {"description": text, "content": refer("Error")} for status, text in STATUSES.items()},
        },
    }
    row = {"type": "object", "properties": columns}
    rows = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": row}}}
    error = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "musiq serve", "version": __version__},
        "paths": {SCORE: {"post": operation}},
        "components": {"schemas": {"Rows": rows, "Error": error}},
    }


def draw_documents(service: Service, settings: ServeSettings) -> str:
    """Return the page about the route."""
    columns = "".join(
        f"<tr><th scope='row'><code>{name}</code></th><td>{html.escape(column['description'])}</td></tr>"
        for name, column in _list_columns(service).items()
    )
    statuses = "".join(f"<tr><th scope='row'>{name}</th><td>{text}</td></tr>" for name, text in STATUSES.items())
    names = " or ".join(f"<code>{html.escape(name)}</code>" for name in service.checkpoints)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>musiq serve: POST {SCORE}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:48em;margin:2em auto;padding:0 1em;color:#1f2937}}
pre{{background:#f3f4f6;padding:1em;overflow-x:auto}}th{{text-align:left;vertical-align:top;padding-right:1em}}</style>
</head>
<body>
<h1>POST {SCORE}</h1>
<p>Scores pictures. <a href="{SCHEMA[1:]}">openapi.json</a> describes it to programs, and
<a href=".">the page</a> does the same by hand.</p>
<pre>curl -F files=@photo.jpg -F files=@scan.png http://{html.escape(settings.host)}:{settings.port}{SCORE}</pre>
<p>Fields of the form: <code>files</code>, one for each picture, and <code>model</code>, which is {names}; without it
the first one scores. {_describe_limits(service, settings)}</p>
<p>The answer is <code>{{"rows": [...]}}</code>, a row for each file in their order, and a file that cannot be scored
is a row with its error.</p>
<h2>Row</h2>
<table>{columns}</table>
<h2>Mistakes</h2>
<p>They are answered with a status and <code>{{"error": "one sentence"}}</code>.</p>
<table>{statuses}</table>
</body>
</html>
"""
