"""The cluster that tests talk to, whichever API server is behind it.

What the stand-in leaves out, and a real server does: the cost and the type check of CEL rules,
conversion webhooks, privilege-escalation checks on Roles, quotas and limit ranges, aggregated
discovery, OpenAPI v2, printed tables, the token volume in pods, the ordering of a rolling
Deployment (nothing plays the controllers of Deployments and Jobs).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kubernetes import client, config

from kube_api.api import Api
from kube_api.certificate import certificate_of, write_certificate
from kube_api.rbac import Tokens
from kube_api.request import Recorded
from kube_api.resources import Catalogue, built_in, read_crds
from kube_api.server import Server
from kube_api.status import ApiError
from kube_api.store import Store
from kube_api.writing import Options

ADMIN = "admin"
PLAYER = "system:player"
"""The user of those who play parts of the cluster: never recorded, never failed on purpose."""

ROOT = Path(__file__).resolve().parents[2]


class OnlyStandIn(Exception):
    """Asked of a real server what only the stand-in can do; tests skip."""


class Cluster(ABC):
    """An API server with every CRD, and an administrator's token.

    Args:
        folder: keeps kubeconfigs and certificates.
    """

    real: bool
    """The API server is Kubernetes' own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = {name: secrets.token_urlsafe(24) for name in (ADMIN, PLAYER)}
        self.certificate = write_certificate(folder)
        self._written = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""

    @property
    def plays_training_operator(self) -> bool:
        """A real training-operator is running; tests need not play it."""
        return False

    @property
    def collects_garbage(self) -> bool:
        """Dependents of deleted objects are deleted."""
        return True

    @abstractmethod
    def start(self) -> None:
        """Start the API server, or start it again over what it kept."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the API server: connections break, data stays."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything for good."""

    @property
    def requests(self) -> list[Recorded]:
        """Every request for objects so far (stand-in only).

        Raises:
            OnlyStandIn: on a real server.
        """
        raise OnlyStandIn("requests are recorded by the stand-in only")

    def fail(
        self,
        match: Callable[[Recorded], bool],
        status: int,
        times: int,
        retry_after: int | None = None,
    ) -> None:
        """Answer the next requests that match with an error (stand-in only).

        Args:
            status: HTTP status; 0 cuts the connection without an answer.
            times: how many requests.
            retry_after: seconds of the Retry-After header.

        Raises:
            OnlyStandIn: on a real server.
        """
        raise OnlyStandIn("faults are injected into the stand-in only")

    def expire(self) -> None:
        """Forget what happened so far: watches from earlier versions get 410 (stand-in only).

        Raises:
            OnlyStandIn: on a real server.
        """
        raise OnlyStandIn("history is forgotten by the stand-in only")

    def token(self, account: str) -> str:
        """A token for a service account `NAMESPACE/NAME`, from the API's own TokenRequest."""
        namespace, name = account.split("/")
        body = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        answer: Any = self.core.create_namespaced_service_account_token(name, namespace, body)
        return answer.status.token

    def kubeconfig(self, account: str | None = None, namespace: str = "default") -> Path:
        """A kubeconfig of the administrator or of a service account.

        Args:
            account: `NAMESPACE/NAME`; None: the administrator.
            namespace: the context's own.
        """
        token = self.tokens[ADMIN] if account is None else self.token(account)
        return self._kubeconfig(token, namespace)

    def _kubeconfig(self, token: str, namespace: str) -> Path:
        authority = base64.b64encode(certificate_of(self.certificate).encode()).decode()
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        self._written += 1
        file = self.folder / f"kubeconfig-{self._written}.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(content))
        return file

    def client(self, account: str | None = None) -> client.ApiClient:
        """A client of the administrator or of a service account `NAMESPACE/NAME`."""
        if account is None:
            return self._admin
        return config.new_client_from_config(str(self.kubeconfig(account)))

    @cached_property
    def _admin(self) -> client.ApiClient:
        return config.new_client_from_config(str(self.kubeconfig()))

    def player_client(self) -> client.ApiClient:
        """A client of its own for a player."""
        file = self._kubeconfig(self.tokens[PLAYER], "default")
        return config.new_client_from_config(str(file))

    @cached_property
    def core(self) -> client.CoreV1Api:
        """The core API as the administrator."""
        return client.CoreV1Api(self.client())

    @cached_property
    def custom(self) -> client.CustomObjectsApi:
        """Custom objects as the administrator."""
        return client.CustomObjectsApi(self.client())


@dataclass
class _Fault:
    match: Callable[[Recorded], bool]
    error: ApiError
    left: int


class StandIn(Cluster):
    """The API server of this package, in threads of this process.

    Args:
        crds: the CRDs it holds from the start.
    """

    real = False

    def __init__(self, folder: Path, crds: list[dict[str, Any]]) -> None:
        super().__init__(folder)
        self._store = Store()
        catalogue = Catalogue(built_in())
        api = Api(
            self._store,
            catalogue,
            Tokens(self._store, {t: name for name, t in self.tokens.items()}),
        )
        self._faults: list[_Fault] = []
        self._server = Server(api, str(self.certificate), self._fault)
        _furnish(api, crds)
        self.start()

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def close(self) -> None:
        self._server.stop()

    @property
    def requests(self) -> list[Recorded]:
        return [recorded for recorded in self._server.requests if recorded.user != PLAYER]

    def fail(
        self,
        match: Callable[[Recorded], bool],
        status: int,
        times: int,
        retry_after: int | None = None,
    ) -> None:
        text = f"injected by the test: {status}"
        self._faults.append(_Fault(match, ApiError(status, text, retry_after=retry_after), times))

    def expire(self) -> None:
        self._store.expire()

    def _fault(self, recorded: Recorded) -> ApiError | None:
        for fault in self._faults:
            if recorded.user != PLAYER and fault.left > 0 and fault.match(recorded):
                fault.left -= 1
                return fault.error
        return None


def _furnish(api: Api, crds: list[dict[str, Any]]) -> None:
    """What a new cluster holds: namespaces, their accounts, the administrator's role, CRDs."""
    options = Options(manager="kube-apiserver")
    kinds = {resource.plural: resource for resource in api.catalogue}
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        api.create(kinds["namespaces"], "", {"metadata": {"name": name}}, options)
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    role = {"metadata": {"name": "cluster-admin"}, "rules": everything}
    api.create(kinds["clusterroles"], "", role, options)
    for crd in crds:
        api.install(crd)


def crd_folder() -> Path | None:
    """The folder of CRDs: `EXSEARCH_CRDS`, else the shared one beside the repository, else None."""
    folder = Path(os.environ.get("EXSEARCH_CRDS") or ROOT.parent / "shared" / "crds")
    return folder if folder.is_dir() else None


def open_cluster(folder: Path, crds: Path) -> Cluster:
    """Start a cluster: a real one where `KUBEBUILDER_ASSETS` has one, else the stand-in.

    Args:
        folder: for its files, its own.
        crds: folder of CRDs that it is to hold; parsed once, and kept between runs.
    """
    cache = Path(tempfile.gettempdir()) / f"exsearch-crds-{Path.home().name}"
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / "kube-apiserver").exists():
        from kube_api.real import RealCluster

        return RealCluster(folder, Path(assets), read_crds(crds, cache))
    return StandIn(folder, read_crds(crds, cache))
