"""Which kinds the API server serves: built-in ones, and those of the CRDs it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kube_api.schema import ANYTHING, Node, Schema

VERSION = "1.36.0"
"""Kubernetes version whose built-in schemas are served."""


@dataclass(frozen=True)
class Resource:
    """One kind in one version, as discovery lists it.

    Args:
        schema: of the whole object; `metadata` is the same for every kind.
        subresources: `status`, `scale`, `log`, … by name.
        custom: it comes from a CRD.
        categories: names of groups of kinds, such as `all`.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    schema: Node = field(repr=False, compare=False)
    subresources: frozenset[str] = frozenset()
    custom: bool = False
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`kubeflow.org/v1`, and plain `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        """Where its objects are kept: all versions of a kind share one place."""
        return self.group, self.plural


_CORE, _APPS, _BATCH = "", "apps", "batch"
_RBAC, _CRD = "rbac.authorization.k8s.io", "apiextensions.k8s.io"
_AUTHZ, _AUTHN = "authorization.k8s.io", "authentication.k8s.io"

# group, version, plural, kind, namespaced, subresources, short names
_BUILT_IN: tuple[tuple[str, str, str, str, bool, str, str], ...] = (
    (_CORE, "v1", "namespaces", "Namespace", False, "status finalize", "ns"),
    (_CORE, "v1", "nodes", "Node", False, "status", "no"),
    (_CORE, "v1", "pods", "Pod", True, "status log binding eviction", "po"),
    (_CORE, "v1", "services", "Service", True, "status", "svc"),
    (_CORE, "v1", "configmaps", "ConfigMap", True, "", "cm"),
    (_CORE, "v1", "secrets", "Secret", True, "", ""),
    (_CORE, "v1", "serviceaccounts", "ServiceAccount", True, "token", "sa"),
    (_CORE, "v1", "events", "Event", True, "", "ev"),
    (_CORE, "v1", "endpoints", "Endpoints", True, "", "ep"),
    (_CORE, "v1", "limitranges", "LimitRange", True, "", "limits"),
    (_CORE, "v1", "resourcequotas", "ResourceQuota", True, "status", "quota"),
    (_CORE, "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, "status", "pvc"),
    (_CORE, "v1", "persistentvolumes", "PersistentVolume", False, "status", "pv"),
    (_APPS, "v1", "deployments", "Deployment", True, "status scale", "deploy"),
    (_APPS, "v1", "replicasets", "ReplicaSet", True, "status scale", "rs"),
    (_APPS, "v1", "statefulsets", "StatefulSet", True, "status scale", "sts"),
    (_APPS, "v1", "daemonsets", "DaemonSet", True, "status", "ds"),
    (_BATCH, "v1", "jobs", "Job", True, "status", ""),
    (_BATCH, "v1", "cronjobs", "CronJob", True, "status", "cj"),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, "", "netpol"),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", True, "status", "ing"),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, "status", "pdb"),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, "status",
     "hpa"),
    ("coordination.k8s.io", "v1", "leases", "Lease", True, "", ""),
    ("events.k8s.io", "v1", "events", "Event", True, "", "ev"),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, "", "pc"),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, "", "sc"),
    (_RBAC, "v1", "roles", "Role", True, "", ""),
    (_RBAC, "v1", "rolebindings", "RoleBinding", True, "", ""),
    (_RBAC, "v1", "clusterroles", "ClusterRole", False, "", ""),
    (_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, "", ""),
    (_AUTHZ, "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, "", ""),
    (_AUTHZ, "v1", "subjectaccessreviews", "SubjectAccessReview", False, "", ""),
    (_AUTHN, "v1", "tokenreviews", "TokenReview", False, "", ""),
    (_CRD, "v1", "customresourcedefinitions", "CustomResourceDefinition", False, "status",
     "crd crds"),
)  # fmt: skip

REVIEWS = frozenset({"selfsubjectaccessreviews", "subjectaccessreviews", "tokenreviews"})
"""Kinds that are answered and never kept."""

_IDENTITY: Schema = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
}


@cache
def definitions() -> Mapping[str, Schema]:
    """Schemas of the built-in kinds, by their Go names, from kubernetes-validate."""
    from kubernetes_validate import utils

    name = f"kubernetes-json-schema/v{VERSION}-local/_definitions.json"
    found = dict(utils.schema_contents(name, VERSION)["$defs"])
    for each, schema in found.items():
        if "object" in schema.get("type", ()) and not {"properties", "additionalProperties"} & set(
            schema
        ):
            found[each] = ANYTHING  # FieldsV1, RawExtension: any object
    # A CRD's own schema recurses without end: taken as it comes, owned as a whole.
    found["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"] = {
        **ANYTHING,
        "x-kubernetes-map-type": "atomic",
    }
    return found


def built_in() -> Iterator[Resource]:
    """The built-in kinds."""
    by_kind = {
        (gvk["group"], gvk["version"], gvk["kind"]): schema
        for schema in definitions().values()
        for gvk in schema.get("x-kubernetes-group-version-kind", ())
    }
    for group, version, plural, kind, namespaced, subresources, short in _BUILT_IN:
        yield Resource(
            group=group,
            version=version,
            plural=plural,
            kind=kind,
            namespaced=namespaced,
            schema=Node.at(by_kind[group, version, kind], definitions()),
            subresources=frozenset(subresources.split()),
            short_names=tuple(short.split()),
        )


def of_crd(crd: Mapping[str, Any]) -> Iterator[Resource]:
    """The served versions of a CustomResourceDefinition, its storage version first."""
    spec = crd["spec"]
    names = spec["names"]
    for version in sorted(spec["versions"], key=lambda v: not v.get("storage", False)):
        if not version.get("served", False):
            continue
        schema = dict(version["schema"]["openAPIV3Schema"])
        schema["properties"] = {**schema.get("properties", {}), **_IDENTITY}
        yield Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            schema=Node(schema, definitions()),
            subresources=frozenset(version.get("subresources") or {}),
            custom=True,
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
        )


class Catalogue:
    """The kinds served now; CRDs come and go."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._found = {(r.group, r.version, r.plural): r for r in resources}

    def get(self, group: str, version: str, plural: str) -> Resource | None:
        """The kind at a path, or None."""
        return self._found.get((group, version, plural))

    def kind(self, api_version: str, kind: str) -> Resource | None:
        """The kind that an object names in `apiVersion` and `kind`, or None."""
        for resource in self._found.values():
            if (resource.api_version, resource.kind) == (api_version, kind):
                return resource
        return None

    def add(self, crd: Mapping[str, Any]) -> None:
        """Serve a CRD's versions in place of what it served before."""
        self.remove(crd)
        for resource in of_crd(crd):
            self._found = {
                **self._found,
                (resource.group, resource.version, resource.plural): resource,
            }

    def remove(self, crd: Mapping[str, Any]) -> None:
        """Serve a CRD's kinds no more."""
        key = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        self._found = {k: r for k, r in self._found.items() if r.key != key}

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._found.values()))


def read_crds(folder: Path, cache_folder: Path) -> list[dict[str, Any]]:
    """Every CRD of a folder of YAML files.

    Args:
        cache_folder: keeps the parsed files: megabytes of YAML take seconds, JSON does not.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[dict[str, Any]] = []
    cache_folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.glob("*.yaml")):
        stat = file.stat()
        kept = cache_folder / f"{file.stem}-{stat.st_size}-{stat.st_mtime_ns}.json"
        if not kept.exists():
            documents = [d for d in yaml.load_all(file.read_text(), loader) if d]
            new = kept.with_suffix(".new")
            new.write_text(json.dumps(documents))
            new.replace(kept)
        found += json.loads(kept.read_text())
    return [d for d in found if d.get("kind") == "CustomResourceDefinition"]
