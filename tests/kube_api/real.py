"""A real API server from `KUBEBUILDER_ASSETS`: etcd, kube-apiserver, and what else is there.

With kube-controller-manager there are service accounts, garbage collection and namespaces that
end; with training-operator, PyTorchJobs have their real controller.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kube_api.certificate import certificate_of
from kube_api.cluster import Cluster
from kube_api.rest import Rest

_START = 60.0
"""Seconds that a part may take to get ready."""

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_OPERATOR_HOME = "kubeflow"


class RealCluster(Cluster):
    """Kubernetes' own API server on free ports of 127.0.0.1.

    Args:
        assets: the folder of the binaries.
        crds: applied at the start.

    Raises:
        RuntimeError: a part did not get ready; its log is named.
    """

    real = True

    def __init__(self, folder: Path, assets: Path, crds: Iterable[dict[str, Any]]) -> None:
        super().__init__(folder)
        self._assets = assets
        self._etcd_port, self._port = _free_port(), _free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        _write_account_key(folder)
        rows = [f'{token},{name},{name},"system:masters"' for name, token in self.tokens.items()]
        tokens = folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("\n".join(rows) + "\n")
        try:
            self._start_etcd()
            self.start()
            _apply_crds(Rest(self.client(), "default"), crds)
            self._start_controllers()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def plays_training_operator(self) -> bool:
        return (self._assets / "training-operator").exists()

    @property
    def collects_garbage(self) -> bool:
        return (self._assets / "kube-controller-manager").exists()

    def start(self) -> None:
        if "kube-apiserver" in self._running:
            return
        folder = self.folder
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={folder / 'certificates'}",
            f"--tls-cert-file={self.certificate}",
            f"--tls-private-key-file={self.certificate}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'sa.pub'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--kubelet-preferred-address-types=InternalIP",
        )
        self._wait("kube-apiserver", f"{self.url}/readyz")

    def stop(self) -> None:
        self._end("kube-apiserver")

    def close(self) -> None:
        for name in reversed(list(self._running)):
            self._end(name)

    def _start_etcd(self) -> None:
        address = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{_free_port()}"
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={address}",
            f"--advertise-client-urls={address}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        self._wait("etcd", f"{address}/health")

    def _start_controllers(self) -> None:
        config = str(self.kubeconfig())
        if (self._assets / "kube-controller-manager").exists():
            self._spawn(
                "kube-controller-manager",
                f"--kubeconfig={config}",
                f"--service-account-private-key-file={self.folder / 'sa.key'}",
                "--leader-elect=false",
                f"--secure-port={_free_port()}",
                "--bind-address=127.0.0.1",
                f"--cert-dir={self.folder / 'controller-certificates'}",
            )
        if self.plays_training_operator:
            health = _free_port()
            _furnish_operator(Rest(self.client(), _OPERATOR_HOME))
            self._spawn(
                "training-operator",
                f"--kubeconfig={config}",
                "--enable-scheme=pytorchjob",
                f"--metrics-bind-address=127.0.0.1:{_free_port()}",
                f"--health-probe-bind-address=127.0.0.1:{health}",
                f"--webhook-server-port={_free_port()}",
            )
            self._wait("training-operator", f"http://127.0.0.1:{health}/healthz")

    def _spawn(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(self._assets / name), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "MY_POD_NAMESPACE": _OPERATOR_HOME},
            )

    def _end(self, name: str) -> None:
        child = self._running.pop(name, None)
        if child is None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _wait(self, name: str, url: str) -> None:
        trust = ssl.create_default_context(cadata=certificate_of(self.certificate))
        until = time.monotonic() + _START
        while time.monotonic() < until and self._running[name].poll() is None:
            request = urllib.request.Request(url)
            if url.startswith(self.url):
                request.add_header("Authorization", f"Bearer {self.tokens['admin']}")
            try:
                with urllib.request.urlopen(request, timeout=2, context=trust):
                    return
            except OSError:
                time.sleep(0.1)
        log = self.folder / f"{name}.log"
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{name} did not get ready; the end of {log}:\n{last}")


def _apply_crds(rest: Rest, crds: Iterable[dict[str, Any]]) -> None:
    """Create CRDs and wait until each is served."""
    names = []
    for crd in crds:
        rest.create(_CRDS, {k: v for k, v in crd.items() if k != "status"})
        names.append(crd["metadata"]["name"])
    until = time.monotonic() + _START
    for name in names:
        while not _established(rest.get(_CRDS, name)):
            if time.monotonic() > until:
                raise RuntimeError(f"CustomResourceDefinition {name} is not established")
            time.sleep(0.1)


def _established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _furnish_operator(rest: Rest) -> None:
    """What training-operator waits for before it looks at a job: where its certificates go.

    Its own webhook is not installed: it is served under a name that only a cluster's DNS knows.
    """
    rest.create("/api/v1/namespaces", {"metadata": {"name": _OPERATOR_HOME}})
    secret = {"metadata": {"name": "training-operator-webhook-cert"}}
    rest.create("/api/v1/namespaces/{namespace}/secrets", secret)
    name = "validator.training-operator.kubeflow.org"
    service = {"name": "training-operator", "namespace": _OPERATOR_HOME, "path": "/none"}
    webhook = {
        "name": f"none.{name}",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "clientConfig": {"service": service},
        "rules": [
            {"apiGroups": ["none.kubeflow.org"], "apiVersions": ["v1"], "operations": ["CREATE"],
             "resources": ["none"]}
        ],
    }  # fmt: skip
    rest.create(_WEBHOOKS, {"metadata": {"name": name}, "webhooks": [webhook]})


def _write_account_key(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = folder / "sa.key", folder / "sa.pub"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
