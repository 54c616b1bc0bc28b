"""The CRD: structural, bounded, agreeing with the settings; its rules readable and compilable."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kube_api import cel
from kube_api.schema import Node, pruned, wrong_types, wrong_values
from manifest_checks import MANIFESTS, OVERLAYS, ROOT, SUPPORTED, run_of
from typer.testing import CliRunner

from exsearch.cli.operator import app
from exsearch.config import RunConfig
from exsearch.errors import InputError
from exsearch.operator import crd, rules, structural
from exsearch.operator.spec import KeepingConfig, read_spec

pytestmark = pytest.mark.unit

SPEC: dict[str, Any] = {
    "model": {"path": "/mnt/exsearch/models/base"},
    "data": {"corpus": "/mnt/exsearch/c.tsv", "train": ["train.jsonl"], "test": ["test.jsonl"]},
}


@functools.cache
def resource() -> dict[str, Any]:
    """The schema of the whole resource."""
    [version] = crd.definition()["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def places(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place of a schema, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from places(inner, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from places(schema[word], f"{path}.*")


def at(path: str, value: Any) -> dict[str, Any]:
    """A spec that is right but for the value at a path."""
    whole: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SPEC))
    node, (*parents, leaf) = whole, path.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    node[leaf] = value
    return whole


def test_the_manifest_is_what_the_code_makes() -> None:
    text = (MANIFESTS / "operator/base/crd.yaml").read_text(encoding="utf-8")
    assert text == crd.as_yaml(), "run: exsearch operator crd -o manifests/operator/base/crd.yaml"
    assert yaml.safe_load(text) == crd.definition()


@pytest.mark.parametrize("version", SUPPORTED)
def test_apiextensions_takes_it(version: str) -> None:
    kubernetes_validate.validate(crd.definition(), version, strict=True)


KEYWORDS = {
    "description", "type", "nullable", "enum", "default", "format", "pattern", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "maxItems", "maxProperties",
    "required", "properties", "items", "additionalProperties", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-validations",
}  # fmt: skip
"""What apiextensions/v1 takes in a structural schema, as far as it is used."""


def test_it_is_structural() -> None:
    for path, schema in places(resource()):
        assert set(schema) <= KEYWORDS, path
        kind = schema["type"]
        assert kind in ("object", "array", "string", "integer", "number", "boolean"), path
        assert ("items" in schema) == (kind == "array"), path
        assert not {"properties", "additionalProperties"} <= set(schema), path
        assert set(schema.get("required", ())) <= set(schema.get("properties", ())), path
        for strict, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            assert schema.get(strict) in (None, True), path
            assert strict not in schema or bound in schema, path


def test_all_that_rules_read_is_bounded() -> None:
    for path, schema in places(resource()["properties"]["spec"]):
        if schema["type"] == "string":
            assert "enum" in schema or schema["maxLength"] <= 16_384, path
        elif schema["type"] == "array":
            assert schema["maxItems"] <= 64, path
            assert schema["x-kubernetes-list-type"] in ("atomic", "set"), path
        elif "additionalProperties" in schema:
            assert schema["maxProperties"] <= 64, path


def test_fields_are_the_settings_and_little_is_persisted() -> None:
    spec = resource()["properties"]["spec"]
    assert set(spec["properties"]) == (set(RunConfig.model_fields) - {"run"}) | set(
        KeepingConfig.model_fields
    )
    assert not {"namespace", "deploy"} & set(spec["properties"]["cluster"]["properties"])
    kept = {path: schema["default"] for path, schema in places(resource()) if "default" in schema}
    assert kept == {".spec.suspend": False, ".spec.history": 10, ".spec.on_delete": "Retain"}
    # A toleration's fields are core/v1's, entries and elements their list's.
    mute = [path for path, schema in places(spec) if "description" not in schema]
    assert [path for path in mute if "*" not in path] == []


def test_every_default_is_a_value_that_the_schema_takes() -> None:
    run = RunConfig().model_dump(mode="json", exclude={"run": True})
    for name in ("namespace", "deploy"):
        del run["cluster"][name]
    spec = {**run, **KeepingConfig().model_dump(mode="json"), **SPEC}
    node = Node(resource()["properties"]["spec"])
    unknown: list[str] = []
    pruned(spec, node, "", unknown)
    assert unknown == []
    assert list(wrong_types(spec, node)) == []
    assert list(wrong_values(spec, node)) == []


NUMBERS = [
    (path.removeprefix("."), schema)
    for path, schema in places(resource()["properties"]["spec"])
    if schema["type"] in ("integer", "number") and "*" not in path
]


@pytest.mark.parametrize(("path", "schema"), NUMBERS, ids=[path for path, _ in NUMBERS])
def test_numbers_have_the_bounds_of_the_settings(path: str, schema: dict[str, Any]) -> None:
    node = Node(resource()["properties"]["spec"])
    edges = {schema[bound] for bound in ("minimum", "maximum") if bound in schema}
    for value in {e + step for e in edges | set(schema.get("enum", ())) for step in (-1, 0, 1)}:
        spec = at(path, value)
        refused = [cause for cause in wrong_values(spec, node) if cause.field == path]
        try:
            read_spec("a", "n", spec)
        except InputError:
            assert refused, f"{path}={value}: only the settings refuse it"
        else:
            assert not refused, f"{path}={value}: {refused}"


def test_rules_are_readable_and_point_at_fields() -> None:
    found = 0
    for path, schema in places(resource()):
        for rule in schema.get("x-kubernetes-validations", ()):
            cel.program(rule["rule"])
            assert "\n" not in rule["message"], path
            assert len(rule["message"]) <= 250, path
            here = schema
            for name in rule.get("fieldPath", "").split(".")[1:]:
                here = here["properties"][name]
            found += 1
    assert found >= 20


def test_columns_show_fields_that_there_are() -> None:
    [version] = crd.definition()["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        here = resource()
        names = column["jsonPath"].split(".")[1:]
        if names[0] == "metadata":
            continue
        for name in names:
            here = here["properties"][name]
        assert here["type"] == column["type"], column["name"]


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "one type"),
        ({"type": "string", "contentEncoding": "base64"}, "no place for 'contentEncoding'"),
        ({"description": "anything"}, "wants a type"),
    ],
)
def test_a_setting_that_no_crd_can_express_is_refused(field: dict[str, Any], why: str) -> None:
    model = {"type": "object", "properties": {"new": field}}
    with pytest.raises(TypeError, match=rf"spec\.new: .*{why}"):
        structural.structural(model, lambda where, schema: schema)


def test_a_rule_about_a_setting_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules.RULES, "model.pth", ())
    with pytest.raises(TypeError, match=r"model\.pth"):
        crd.definition()


def test_command_prints_and_writes_it(tmp_path: Any) -> None:
    printed = CliRunner().invoke(app, ["crd"])
    assert (printed.exit_code, printed.stdout) == (0, crd.as_yaml())
    file = tmp_path / "crd.yaml"
    assert CliRunner().invoke(app, ["crd", "--output", str(file)]).exit_code == 0
    assert file.read_text(encoding="utf-8") == crd.as_yaml()
    failed = CliRunner().invoke(app, ["crd", "--output", str(tmp_path / "no" / "crd.yaml")])
    assert isinstance(failed.exception, InputError)
    assert "folder" in str(failed.exception)


# --- the stand-in's rules

PAIR: dict[str, Any] = {
    "type": "object",
    "x-kubernetes-validations": [
        {"rule": "!has(self.a) || self.a > 1.0", "message": "a is too small", "fieldPath": ".a"},
        {"rule": "self.b == oldSelf.b", "message": "b is fixed", "reason": "FieldValueForbidden"},
    ],
    "properties": {
        "a": {"type": "number", "nullable": True},
        "b": {"type": "string"},
        "list": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "size": {
                        "type": "integer",
                        "x-kubernetes-validations": [{"rule": "self >= oldSelf"}],
                    },
                },
            },
        },
    },
}
CASES: list[tuple[dict[str, Any], dict[str, Any] | None, list[str]]] = [
    ({"a": 2, "b": "x"}, None, []),
    ({"a": 1, "b": "x"}, None, ['a: Invalid value: "object": a is too small']),
    ({"a": None, "b": "x"}, None, []),
    ({"a": 1, "b": "x"}, {"a": 1, "b": "x"}, []),
    ({"a": 1, "b": "x"}, {"a": 2, "b": "x"}, ['a: Invalid value: "object": a is too small']),
    ({"b": "y"}, {"b": "x"}, ["<nil>: Forbidden: b is fixed"]),
    (
        {"b": "x", "list": [{"name": "q", "size": 1}, {"name": "p", "size": 1}]},
        {"b": "x", "list": [{"name": "p", "size": 2}]},
        ['list[1].size: Invalid value: "integer": failed rule: self >= oldSelf'],
    ),
]
"""A value, what it replaces, and what the rules say: a null is absent, what did not change is not
asked again, a change is compared with the element of the same key."""


@pytest.mark.parametrize(("value", "before", "said"), CASES)
def test_the_stand_in_evaluates_rules(
    value: dict[str, Any], before: dict[str, Any] | None, said: list[str]
) -> None:
    causes = wrong_values(value, Node(PAIR), before)
    assert [f"{cause.field}: {cause.message}" for cause in causes] == said


def test_the_stand_in_checks_no_rule_of_an_object_that_breaks_its_schema() -> None:
    schema = {**PAIR, "required": ["list"]}
    said = [cause.message for cause in wrong_values({"a": 1, "b": "x"}, Node(schema))]
    assert said[0] == "Required value"
    assert "some validation rules were not checked" in said[1]
    assert len(said) == 2


EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("searchagent-*.yaml"))


def test_there_is_an_example_per_overlay() -> None:
    assert sorted(f"searchagent-{overlay}.yaml" for overlay in OVERLAYS) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_its_overlays_run(name: str) -> None:
    item = yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8"))
    assert (item["apiVersion"], item["kind"]) == ("exsearch.dev/v1alpha1", "SearchAgent")
    run, _ = read_spec(item["metadata"]["name"], item["metadata"]["namespace"], item["spec"])
    plain = run_of(name.removeprefix("searchagent-").removesuffix(".yaml"))
    found, wanted = run.model_dump(), plain.model_dump()
    # An operator in the cluster reaches Kubeflow by its Service; each run has its own folder.
    assert found["pipeline"].pop("host") == "http://ml-pipeline.kubeflow.svc:8888"
    wanted["pipeline"].pop("host")
    found.pop("run")
    wanted.pop("run")
    assert found == wanted
