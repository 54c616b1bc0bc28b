"""From pydantic's JSON schema to the structural schema that a CustomResourceDefinition takes.

apiextensions/v1 knows no `$ref`, no union of types and no numeric `exclusiveMinimum`, wants a type
at every place, and estimates what a CEL rule may cost from the largest value that it can meet: so
every text, list and map gets a bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Schema = dict[str, Any]

TEXT = 4096
"""Longest text, in characters: the longest path that Linux takes."""
ITEMS = 64
"""Most elements of a list."""
ENTRIES = 64
"""Most entries of a map."""

_COPIED = ("type", "enum", "minimum", "maximum")
_STRICT = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_DROPPED = {"title", "description", "default"}
_SHOWN = 60
"""A longer default is left out of the description."""

Finish = Callable[[str, Schema], Schema]
"""Last touches: a place in the settings (`cluster.storage.root`) and its schema to its schema."""


def structural(model: Mapping[str, Any], finish: Finish) -> Schema:
    """The structural schema of a pydantic model.

    Args:
        model: its `model_json_schema()`.
        finish: applied to every place, the innermost first; `""` is the whole, an element of a
            list or an entry of a map has the name `*`.

    Raises:
        TypeError: a field has a shape that a structural schema cannot express.
    """
    return _converted(model, model.get("$defs", {}), "", finish)


def _converted(
    given: Mapping[str, Any], definitions: Mapping[str, Any], where: str, finish: Finish
) -> Schema:
    schema, nullable = _plain(given, definitions, where)
    found: Schema = {}
    text = _description(schema)
    if text:
        found["description"] = text
    for keyword, value in schema.items():
        if keyword in _COPIED:
            found[keyword] = value
        elif keyword in _STRICT:
            found |= {_STRICT[keyword]: value, keyword: True}
        elif keyword == "properties":
            found["properties"] = {
                name: _converted(inner, definitions, f"{where}.{name}".lstrip("."), finish)
                for name, inner in value.items()
            }
        elif keyword == "items":
            found["items"] = _converted(value, definitions, f"{where}.*", finish)
        elif keyword == "additionalProperties":
            # False needs no word: what the schema does not name is refused or pruned anyway.
            if value is not False:
                found[keyword] = _converted(value, definitions, f"{where}.*", finish)
        elif keyword not in _DROPPED:
            raise TypeError(f"spec.{where}: a CRD has no place for {keyword!r} ({value!r})")
    if nullable:
        found["nullable"] = True
    return finish(where, _bounded(found, where))


def _plain(
    given: Mapping[str, Any], definitions: Mapping[str, Any], where: str
) -> tuple[Schema, bool]:
    """A schema without reference and union, and whether null is a value too."""
    schema, nullable = dict(given), False
    union = schema.pop("anyOf", None)
    if union is not None:
        kinds = [each for each in union if each.get("type") != "null"]
        if len(kinds) != 1:
            raise TypeError(f"spec.{where}: a CRD's field has one type, not {kinds}")
        schema, nullable = {**kinds[0], **schema}, len(union) > 1
    reference = schema.pop("$ref", None)
    if reference is not None:
        # The field's own words say more than those of its type.
        schema = {**definitions[reference.rsplit("/", 1)[1]], **schema}
    schema.pop("$defs", None)
    return schema, nullable


def _bounded(schema: Schema, where: str) -> Schema:
    match schema.get("type"):
        case "string" if "enum" not in schema:
            return {**schema, "maxLength": TEXT}
        case "array":
            # One owner for the whole: files are read, and taints tried, in their order.
            return {**schema, "maxItems": ITEMS, "x-kubernetes-list-type": "atomic"}
        case "object" if "additionalProperties" in schema:
            return {**schema, "maxProperties": ENTRIES}
        case None:
            raise TypeError(f"spec.{where}: a CRD wants a type here")
    return schema


def _description(schema: Mapping[str, Any]) -> str:
    """The field's documentation, and the default that the operator puts in."""
    text = " ".join(schema.get("description", "").split())
    default = schema.get("default")
    if default in ("", None) or isinstance(default, (list, dict)):
        return text
    shown = default if isinstance(default, str) else json.dumps(default)
    return f"{text} Default: {shown}".strip() if len(shown) <= _SHOWN else text
