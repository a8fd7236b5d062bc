"""The OpenAPI document, generated from the route table and the wire schemas, so that it cannot differ from them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from meshd import __version__
from meshd.errors import Code, MeshError
from meshd.http.route import Route

_REF = "#/components/schemas/{model}"


def document(routes: Iterable[Route], *, title: str, about: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document. It describes a stream by the schemas of its lines."""
    table = list(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    _, schemas = models_json_schema([(m, "serialization") for m in _models(table)], ref_template=_REF)
    components = dict(sorted(schemas.get("$defs", {}).items()))
    components["Problem"] = _problem()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "description": about,
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": components},
    }


def _models(routes: list[Route]) -> list[type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    for route in routes:
        answers = route.answers if isinstance(route.answers, tuple) else (route.answers,)
        for shape in (*answers, route.takes):
            if isinstance(shape, type):
                found[shape.__name__] = shape
    return [found[name] for name in sorted(found)]


def _operation(route: Route) -> dict[str, Any]:
    text = inspect.getdoc(route.handler) or ""
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub('[^a-z]+', '_', route.path.lower()).rstrip('_')}",
        "description": text,
        "x-access": route.access,
        "responses": {
            "200": {"description": "done", "content": _content(route)},
            "default": {
                "description": "it failed; `code` says how and `hint` what to type",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    names = re.findall(r"{(\w+)}", route.path)
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    parameters += [{"name": n, "in": "query", "schema": {"type": "string"}} for n in route.parameters]
    if parameters:
        operation["parameters"] = parameters
    if isinstance(route.takes, str):
        operation["requestBody"] = {
            "content": {route.takes: {"schema": {"type": "string", "format": "binary"}}}
        }
    elif route.takes is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": _ref(route.takes)}}}
    return operation


def _content(route: Route) -> dict[str, Any]:
    if isinstance(route.answers, str):
        return {route.answers: {"schema": {"type": "string"}}}
    if isinstance(route.answers, tuple):
        return {"application/x-ndjson": {"schema": {"oneOf": [_ref(model) for model in route.answers]}}}
    return {"application/json": {"schema": _ref(route.answers)}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _problem() -> dict[str, Any]:
    """The schema of a problem document: RFC 9457 with two more members."""
    members: dict[str, Any] = {name: {"type": "string"} for name in MeshError(Code.INTERNAL, "").problem()}
    members["status"] = {"type": "integer"}
    members["code"] = {"type": "string", "enum": sorted(Code)}
    return {"type": "object", "properties": members, "required": sorted(members)}
