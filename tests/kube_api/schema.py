"""What a schema makes of an object: unknown fields, wrong values, defaults, how lists merge.

One walker for both kinds of schema: a CRD's structural `openAPIV3Schema`, and the definitions
of built-in kinds that the package kubernetes-validate carries. CEL rules
(`x-kubernetes-validations`) are `kube_api.cel`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kube_api import cel
from kube_api.status import Cause

Schema = Mapping[str, Any]

ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True)
class Node:
    """A place in a schema, with its `$ref` followed.

    Args:
        schema: the schema at this place.
        definitions: where `#/$defs/NAME` points; empty for CRDs.
    """

    schema: Schema
    definitions: Mapping[str, Schema] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def at(schema: Schema, definitions: Mapping[str, Schema]) -> Node:
        """The node of a schema that may be a reference."""
        while "$ref" in schema:
            schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
        return Node(schema, definitions)

    @property
    def types(self) -> tuple[str, ...]:
        """JSON types it admits, `null` left out; empty where it does not say."""
        said = self.schema.get("type", ())
        return tuple(t for t in ([said] if isinstance(said, str) else said) if t != "null")

    @property
    def int_or_string(self) -> bool:
        """Numbers and strings both pass (ports, quantities)."""
        return bool(self.schema.get("x-kubernetes-int-or-string")) or "oneOf" in self.schema

    @property
    def open(self) -> bool:
        """Fields that it does not name are kept."""
        return bool(self.schema.get("x-kubernetes-preserve-unknown-fields")) or not (
            self.types or "properties" in self.schema or self.int_or_string
        )

    @property
    def embedded(self) -> bool:
        """It holds a whole object, with its own `metadata`."""
        return bool(self.schema.get("x-kubernetes-embedded-resource"))

    def child(self, name: str) -> Node | None:
        """The schema of a field, or None where the field is unknown."""
        properties = self.schema.get("properties", {})
        if name in properties:
            return Node.at(properties[name], self.definitions)
        if self.embedded and name in ("apiVersion", "kind", "metadata"):
            return Node(ANYTHING)
        extra = self.schema.get("additionalProperties")
        if isinstance(extra, Mapping):
            return Node.at(extra, self.definitions)
        return Node(ANYTHING) if self.open or extra is True else None

    @property
    def items(self) -> Node:
        """The schema of a list's elements."""
        found = self.schema.get("items")
        return Node.at(found, self.definitions) if isinstance(found, Mapping) else Node(ANYTHING)

    @property
    def list_type(self) -> str:
        """`map`, `set` or `atomic`: how two lists merge under server-side apply."""
        return self.schema.get("x-kubernetes-list-type", "atomic")

    @property
    def list_keys(self) -> tuple[str, ...]:
        """Fields that tell one element of a `map` list from another."""
        return tuple(self.schema.get("x-kubernetes-list-map-keys", ()))

    @property
    def atomic(self) -> bool:
        """The whole value has one owner."""
        return self.schema.get("x-kubernetes-map-type") == "atomic"

    @property
    def merge_key(self) -> str | None:
        """Field that a strategic merge patch matches list elements by."""
        if self.schema.get("x-kubernetes-patch-strategy", "").startswith("merge"):
            return self.schema.get("x-kubernetes-patch-merge-key")
        return None

    def key_of(self, element: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """What identifies an element of a `map` list, defaults of absent keys included."""
        items = self.items
        return tuple(
            (name, element.get(name, items.default_of(name))) for name in sorted(self.list_keys)
        )

    def default_of(self, name: str) -> Any:
        """The default of a field, None where there is none."""
        child = self.child(name)
        return None if child is None else child.schema.get("default")


def pruned(value: Any, node: Node, path: str, unknown: list[str], nulls: bool = False) -> Any:
    """A copy without fields that the schema does not name.

    Args:
        path: where the value is (`spec.template`); empty at the top.
        unknown: receives the path of every field left out.
        nulls: drop fields that are null, as decoding into a Go struct does.
    """
    if isinstance(value, dict):
        kept = {}
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            child = node.child(name)
            if child is None:
                unknown.append(where)
            elif not (nulls and inner is None):
                kept[name] = pruned(inner, child, where, unknown, nulls)
        return kept
    if isinstance(value, list):
        items = node.items
        return [pruned(v, items, f"{path}[{i}]", unknown, nulls) for i, v in enumerate(value)]
    return value


def defaulted(value: Any, node: Node) -> Any:
    """A copy with the schema's defaults, also in place of a null that may not be null."""
    if isinstance(value, dict):
        filled = dict(value)
        for name, schema in node.schema.get("properties", {}).items():
            if "default" not in schema:
                continue
            absent = name not in filled
            bad_null = not absent and filled[name] is None and not schema.get("nullable")
            if absent or bad_null:
                filled[name] = json.loads(json.dumps(schema["default"]))
        return {
            name: defaulted(inner, child) if (child := node.child(name)) else inner
            for name, inner in filled.items()
        }
    if isinstance(value, list):
        items = node.items
        return [defaulted(inner, items) for inner in value]
    return value


def wrong_types(value: Any, node: Node, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every place whose JSON type is not the schema's: path, expected type, value."""
    if value is None:
        if node.types and not node.schema.get("nullable") and "null" not in _said(node):
            yield path, node.types[0], None
        return
    if node.int_or_string:
        if not isinstance(value, (int, float, str)) or isinstance(value, bool):
            yield path, "integer,string", value
        return
    if node.types and not any(_is(value, name) for name in node.types):
        yield path, node.types[0], value
        return
    for where, child, inner in _inside(value, node, path):
        yield from wrong_types(inner, child, where)


def wrong_values(value: Any, node: Node, before: Any = None) -> Iterator[Cause]:
    """Every place of an object that breaks its schema, or one of the schema's CEL rules.

    Args:
        before: the object that it replaces; None where it is new.
    """
    causes = list(_out_of_bounds(value, node, ""))
    yield from causes
    if not any(cause.reason in cel.BLOCKING for cause in causes):
        yield from cel.broken(value, node, before)
    elif any(cel.asked(value, node)):
        yield cel.UNCHECKED


def _out_of_bounds(value: Any, node: Node, path: str) -> Iterator[Cause]:
    """Every place that breaks `required`, `enum`, `pattern`, a bound or a uniqueness rule."""
    schema = node.schema
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield Cause(
                    f"{path}.{name}" if path else name, "Required value", "FieldValueRequired"
                )
        if len(value) < schema.get("minProperties", 0):
            text = f"{path} in body should have at least {schema['minProperties']} properties"
            yield Cause(path, f"Invalid value: {len(value)}: {text}")
        if len(value) > schema.get("maxProperties", len(value)):
            text = f"must have at most {schema['maxProperties']} items"
            yield Cause(path, f"Too many: {len(value)}: {text}", "FieldValueTooMany")
    elif isinstance(value, list):
        yield from _wrong_list(value, node, path)
    elif value is not None:
        yield from _wrong_scalar(value, node, path)
    for where, child, inner in _inside(value, node, path):
        yield from _out_of_bounds(inner, child, where)


def _wrong_list(value: list[Any], node: Node, path: str) -> Iterator[Cause]:
    schema = node.schema
    if len(value) < schema.get("minItems", 0):
        text = f"{path} in body should have at least {schema['minItems']} items"
        yield Cause(path, f"Invalid value: {len(value)}: {text}")
    if len(value) > schema.get("maxItems", len(value)):
        text = f"must have at most {schema['maxItems']} items"
        yield Cause(path, f"Too many: {len(value)}: {text}", "FieldValueTooMany")
    if node.list_type in ("map", "set"):
        seen: set[str] = set()
        for place, element in enumerate(value):
            key = _identity(element, node)
            if key in seen:
                yield Cause(f"{path}[{place}]", f"Duplicate value: {key}", "FieldValueDuplicate")
            seen.add(key)


def _identity(element: Any, node: Node) -> str:
    keyed = node.list_type == "map" and isinstance(element, dict)
    return json.dumps(dict(node.key_of(element)) if keyed else element, sort_keys=True)


def _wrong_scalar(value: Any, node: Node, path: str) -> Iterator[Cause]:
    schema = node.schema
    shown = json.dumps(value)
    if "enum" in schema and value not in schema["enum"]:
        listed = ", ".join(json.dumps(choice) for choice in schema["enum"])
        text = f"Unsupported value: {shown}: supported values: {listed}"
        yield Cause(path, text, "FieldValueNotSupported")
    if isinstance(value, str):
        for problem in _wrong_text(value, schema):
            yield Cause(path, f"Invalid value: {shown}: {path} in body {problem}")
    elif not isinstance(value, bool):
        for problem in _wrong_number(value, schema):
            yield Cause(path, f"Invalid value: {shown}: {path} in body {problem}")


def _wrong_number(value: float, schema: Schema) -> Iterator[str]:
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    if value < least:
        yield f"should be greater than or equal to {least}"
    elif value == least and schema.get("exclusiveMinimum"):
        yield f"should be greater than {least}"
    if value > most:
        yield f"should be less than or equal to {most}"
    elif value == most and schema.get("exclusiveMaximum"):
        yield f"should be less than {most}"


def _wrong_text(value: str, schema: Schema) -> Iterator[str]:
    pattern = schema.get("pattern")
    if pattern is not None and not re.search(pattern, value):
        yield f"should match '{pattern}'"
    if len(value) < schema.get("minLength", 0):
        yield f"should be at least {schema['minLength']} chars long"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"should be at most {schema['maxLength']} chars long"


def _inside(value: Any, node: Node, path: str) -> Iterator[tuple[str, Node, Any]]:
    """Parts of a value with their schema; parts the schema does not know are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            child = node.child(name)
            if child is not None:
                yield (f"{path}.{name}" if path else name), child, inner
    elif isinstance(value, list):
        items = node.items
        for place, inner in enumerate(value):
            yield f"{path}[{place}]", items, inner


def _said(node: Node) -> tuple[str, ...]:
    said = node.schema.get("type", ())
    return (said,) if isinstance(said, str) else tuple(said)


def _is(value: Any, name: str) -> bool:
    match name:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return True
