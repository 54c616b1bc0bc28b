"""CEL rules of CRDs (`x-kubernetes-validations`), evaluated with cel-python.

As the real server does it: a null reads as absent, a rule about `oldSelf` is about changes only,
any other is not asked again of a part that did not change, and nothing is asked of a null. Left
out: the cost budget, the type check of rules when a CRD is made, `messageExpression`,
`optionalOldSelf`, and Kubernetes' own functions (`isQuantity`, `url`, …), at which it stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from kube_api.status import Cause

if TYPE_CHECKING:
    from kube_api.schema import Node

BLOCKING = frozenset({
    "FieldValueRequired", "FieldValueNotSupported", "FieldValueTooLong", "FieldValueTooMany",
    "FieldValueTypeInvalid",
})  # fmt: skip
"""Where the schema finds one of these, no rule is checked."""
UNCHECKED = Cause(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid;"
    " correct the existing errors to complete validation",
)

_IDENTITY = frozenset({"apiVersion", "kind", "metadata", "name", "generateName"})
"""What rules may read of an object though its schema does not name it."""
_PREFIX = {
    "FieldValueRequired": "Required value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueInvalid": 'Invalid value: "{kind}"',
    "FieldValueDuplicate": 'Duplicate value: "{kind}"',
}


@dataclass(frozen=True)
class Asked:
    """One rule, and the part of an object that it is about.

    Args:
        before: the same part of the object as it was; None where there was none, or where no
            element of the old list is known to be this one.
    """

    path: str
    node: Node
    value: Any
    before: Any
    rule: Mapping[str, str]

    @property
    def about_change(self) -> bool:
        """It compares with what was."""
        return re.search(r"\boldSelf\b", self.rule["rule"]) is not None

    @property
    def idle(self) -> bool:
        """There is nothing to check now."""
        return self.before is None if self.about_change else self.before == self.value

    def cause(self) -> Cause | None:
        """What the rule finds wrong; None where it holds."""
        names = {"self": _cel(self.value, self.node)}
        if self.about_change:
            names["oldSelf"] = _cel(self.before, self.node)
        from celpy.evaluation import CELEvalError

        try:
            holds = bool(program(self.rule["rule"]).evaluate(names))
        except CELEvalError as error:
            return self._wrong(f"{error.args[0]} evaluating rule: {self.rule['rule']}")
        if holds:
            return None
        return self._wrong(self.rule.get("message") or f"failed rule: {self.rule['rule']}")

    def _wrong(self, message: str) -> Cause:
        reason = self.rule.get("reason", "FieldValueInvalid")
        # The server shows the type in place of the value.
        prefix = _PREFIX[reason].format(kind=self.node.schema.get("type", ""))
        where = f"{self.path}{self.rule.get('fieldPath', '')}".lstrip(".")
        return Cause(where or "<nil>", f"{prefix}: {message.strip()}", reason)


def asked(value: Any, node: Node, path: str = "", before: Any = None) -> Iterator[Asked]:
    """Every rule of a schema that applies to a value.

    Args:
        before: the value that it replaces, None where it is new.
    """
    if value is None:
        return
    for rule in node.schema.get("x-kubernetes-validations", ()):
        yield Asked(path, node, value, before, rule)
    if isinstance(value, dict):
        old = before if isinstance(before, dict) and not node.atomic else {}
        for name, inner in value.items():
            child = node.child(name)
            if child is not None:
                where = f"{path}.{name}" if name in node.schema.get("properties", {}) else (
                    f"{path}[{name}]"
                )  # fmt: skip
                yield from asked(inner, child, where.lstrip("."), old.get(name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from asked(inner, node.items, f"{path}[{place}]", _earlier(inner, node, before))


def _earlier(element: Any, node: Node, before: Any) -> Any:
    """The element of the old list with the same keys; only lists of type `map` have one."""
    if node.list_type != "map" or not isinstance(before, list) or not isinstance(element, dict):
        return None
    key = node.key_of(element)
    return next((each for each in before if node.key_of(each) == key), None)


def broken(value: Any, node: Node, before: Any = None) -> Iterator[Cause]:
    """What the rules of a schema find wrong in a whole object."""
    for each in asked(value, node, "", before):
        if not each.idle and (cause := each.cause()) is not None:
            yield cause


@cache
def program(rule: str) -> Any:
    """A rule, compiled.

    Raises:
        NotImplementedError: cel-python cannot read it.
    """
    from celpy.celparser import CELParseError

    try:
        return _environment().program(_environment().compile(rule))
    except CELParseError as error:
        raise NotImplementedError(f"the stand-in cannot read the rule {rule!r}") from error


@cache
def _environment() -> Any:
    # Building the grammar takes seconds: once, and only where there is a rule.
    import celpy

    return celpy.Environment()


def _cel(value: Any, node: Node) -> Any:
    """A value in CEL's types, which are the schema's: 1 in a field of type number is 1.0."""
    from celpy import celtypes
    from celpy.adapter import json_to_cel

    if isinstance(value, dict):
        known = {name: node.child(name) for name in value}
        return celtypes.MapType(
            {
                celtypes.StringType(name): _cel(inner, child) if child else json_to_cel(inner)
                for name, inner in value.items()
                if inner is not None and ((child := known[name]) or name in _IDENTITY)
            }
        )
    if isinstance(value, list):
        return celtypes.ListType([_cel(inner, node.items) for inner in value])
    if "number" in node.types and not isinstance(value, bool) and value is not None:
        return celtypes.DoubleType(value)
    return json_to_cel(value)
