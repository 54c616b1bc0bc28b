"""The CustomResourceDefinition of SearchAgent, made from the settings' own schemas.

`exsearch operator crd` prints it, and `manifests/operator/base/crd.yaml` is that text. Three
decisions:

* **Few defaults.** A default of a CRD is written into every resource and stays there when a later
  release has a better one. Only what makes sense to a reader without the code is persisted
  (`suspend`, `history`, `on_delete`); `exsearch.operator.spec` supplies the rest, and the
  descriptions name it.
* **What the operator decides is no field.** `run`, `cluster.namespace` and `cluster.deploy` are
  its own, so the schema does not know them, and `kubectl` refuses them as unknown.
* **Conditions and states of runs are open words.** A newer operator may say more of them without
  a newer CRD.
"""

from __future__ import annotations

from typing import Any

import yaml

from exsearch.config import RunConfig
from exsearch.operator.rules import NAMED, RULES, Rule
from exsearch.operator.spec import KeepingConfig
from exsearch.operator.structural import Schema, structural

GROUP, VERSION, KIND, PLURAL = "exsearch.dev", "v1alpha1", "SearchAgent", "searchagents"
PHASES = ("Pending", "Indexing", "Training", "Serving", "Suspended", "Degraded", "Deleting")
CONDITIONS = ("IndexReady", "Scheduled", "Trained", "Serving", "Canary", "Degraded")

OWN = frozenset({"run", "cluster.namespace", "cluster.deploy"})
"""Settings that are no fields of the spec."""
PERSISTED = ("suspend", "history", "on_delete")
"""Fields whose default the API server writes into the resource."""
_SETS = frozenset({"cluster.images.pull_secrets", "cluster.storage.secret_keys", "serving.cors"})
"""Lists without an order, to which several managers may each add."""
_LONG = {"agent.instruction": 16_384, "agent.selection_instruction": 16_384}
"""Texts that may be longer than a path."""
_WORDS = {
    "pipeline.name": "Name of the pipeline, its recurring run and the prefix of its runs. Unset: "
    "NAMESPACE-NAME of this resource.",
}
"""Descriptions where the operator's default is not that of a run.yaml."""
_COLUMNS = (
    ("Phase", "string", ".status.phase", "Where the agent stands.", 0),
    ("Champion", "string", ".status.champion.run", "The run that made the model in service.", 0),
    ("EM", "number", ".status.champion.metrics.em", "Its exact match on the test questions.", 0),
    ("Last run", "string", ".status.lastRun.state", "How the last run ended, or stands.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Since when the resource exists.", 0),
    ("Digest", "string", ".status.champion.digest", "Digest of the model in service.", 1),
    ("URL", "string", ".status.url", "Where the agent answers.", 1),
)
"""Name, type, path, description and priority of what `kubectl get` shows."""
_HEADER = "# Made by `exsearch operator crd`; a test holds the two equal.\n"


def definition() -> dict[str, Any]:
    """The whole CustomResourceDefinition (apiextensions/v1), the same every time."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "exsearch"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "searchagent",
                "shortNames": ["sag"],
                "categories": ["all"],
            },
            "conversion": {"strategy": "None"},
            "preserveUnknownFields": False,
            "versions": [_version()],
        },
    }


def as_yaml() -> str:
    """The definition as YAML, byte for byte that of `manifests/operator/base/crd.yaml`."""
    return _HEADER + yaml.dump(
        definition(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=98
    )


class _Plain(yaml.SafeDumper):
    """Writes everything out: kubectl takes anchors, but nobody reads them well."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _version() -> dict[str, Any]:
    columns = []
    for name, kind, path, text, priority in _COLUMNS:
        column = {"name": name, "type": kind, "jsonPath": path, "description": text}
        columns.append({**column, "priority": priority} if priority else column)
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": _resource()},
    }


def _resource() -> Schema:
    return {
        "description": "An agent that searches: indexed, trained again and again, served, and kept "
        "so.",
        "type": "object",
        "required": ["spec"],
        "x-kubernetes-validations": [NAMED.schema()],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # Named here so that the rule may point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": _spec(),
            "status": _status(),
        },
    }


def _spec() -> Schema:
    run, keeping = RunConfig.model_json_schema(), KeepingConfig.model_json_schema()
    both = {
        "type": "object",
        "description": "The settings of the agent's runs, section by section as in a run.yaml, and "
        "how the agent is kept.",
        "properties": {**keeping["properties"], **run["properties"]},
        "$defs": {**run["$defs"], **keeping.get("$defs", {})},
    }
    unknown = set(RULES) | _SETS | set(_LONG) | set(_WORDS) | set(PERSISTED)
    fields = KeepingConfig()

    def finish(where: str, schema: Schema) -> Schema:
        unknown.discard(where)
        for name in [n for n in schema.get("properties", {}) if f"{where}.{n}".lstrip(".") in OWN]:
            del schema["properties"][name]
        if where in _SETS:
            schema["x-kubernetes-list-type"] = "set"
        if where in _LONG:
            schema["maxLength"] = _LONG[where]
        if where in _WORDS:
            schema["description"] = _WORDS[where]
        if where in PERSISTED:
            schema["default"] = getattr(fields, where)
        return _ruled(schema, RULES.get(where, ()))

    found = structural(both, finish)
    if unknown:
        raise TypeError(f"no setting is called {', '.join(sorted(unknown))}")
    return found


def _ruled(schema: Schema, rules: tuple[Rule, ...]) -> Schema:
    if not rules:
        return schema
    return {**schema, "x-kubernetes-validations": [rule.schema() for rule in rules]}


def _text(description: str, **more: Any) -> Schema:
    return {"description": description, "type": "string", **more}


def _time(description: str) -> Schema:
    return _text(description, format="date-time")


def _number(description: str) -> Schema:
    return {"description": description, "type": "number"}


def _whole(description: str) -> Schema:
    return {"description": description, "type": "integer", "format": "int64", "minimum": 0}


def _object(description: str, properties: dict[str, Schema], *required: str) -> Schema:
    found: Schema = {"description": description, "type": "object"}
    return {**found, **({"required": list(required)} if required else {}), "properties": properties}


def _promotion(description: str, **more: Schema) -> Schema:
    measured = {
        "em": _number("Exact match, 0 to 1."),
        "f1": _number("F1, 0 to 1."),
        "accuracy": _number("Share of answers that contain a gold answer."),
    }
    fields = {
        "model": _text("Its folder or URL."),
        "digest": _text("Digest of its weights."),
        "run": _text("The run that made it."),
        "promoted": _time("When the gate promoted it."),
        "reason": _text("The gate's words."),
        "metrics": _object("What it measured on that run's test questions.", measured),
    }
    return _object(description, {**fields, **more}, "model", "digest")


def _condition() -> Schema:
    return _object(
        "One thing that is so, is not so, or is not known (metav1.Condition).",
        {
            "type": _text(", ".join(CONDITIONS) + ".", minLength=1, maxLength=316),
            "status": _text("Whether it is so.", enum=["True", "False", "Unknown"]),
            "reason": _text(
                "One word for programs.", minLength=1, maxLength=1024,
                pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            ),
            "message": _text("A sentence for people.", maxLength=32_768),
            "lastTransitionTime": _time("When `status` last changed."),
            "observedGeneration": _whole("The generation of the spec that it was seen under."),
        },
        "type", "status", "reason", "message", "lastTransitionTime",
    )  # fmt: skip


def _status() -> Schema:
    last_run = {
        "id": _text("Its id in Kubeflow Pipelines."),
        "name": _text("Its name."),
        "state": _text("PENDING, RUNNING, SUCCEEDED, FAILED, …: Kubeflow's word."),
        "started": _time("When it started."),
        "finished": _time("When it ended."),
        "url": _text("Its page."),
    }
    recurring = {
        "id": _text("Its id in Kubeflow Pipelines."),
        "name": _text("Its name."),
        "digest": _text("Digest of the settings that it was made from."),
        "enabled": {"description": "It starts runs.", "type": "boolean"},
    }
    history = {
        "description": "The last promotions, the newest first.",
        "type": "array",
        "maxItems": 50,
        "x-kubernetes-list-type": "atomic",
        "items": _promotion(
            "A promotion.", withdrawn=_text("Why it was taken out of service; empty: it was not.")
        ),
    }
    conditions = {
        "description": "What is so, one entry per type.",
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": _condition(),
    }
    return _object(
        "How the agent stands. Only the operator writes it.",
        {
            "phase": _text("Where the agent stands, in one word.", enum=list(PHASES)),
            "observedGeneration": _whole("The generation of the spec that the operator has seen."),
            "conditions": conditions,
            "champion": _promotion("The model in service."),
            "candidate": _promotion(
                "The model that is tried on part of the traffic.",
                since=_time("When its trial began."),
            ),
            "history": history,
            "lastRun": _object("The newest run.", last_run),
            "nextRun": _time("When the next one starts."),
            "url": _text("Where the agent answers."),
            "recurringRun": _object("The schedule in Kubeflow Pipelines.", recurring),
        },
    )
