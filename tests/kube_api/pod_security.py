"""The *restricted* Pod Security Standard, checked on a pod's spec.

The checks and their wording follow the standard's page of the Kubernetes documentation,
version 1.36: what the API server refuses in a namespace labelled
`pod-security.kubernetes.io/enforce: restricted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Fields = Mapping[str, Any]

VOLUME_TYPES = frozenset({
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image",
    "persistentVolumeClaim", "projected", "secret",
})  # fmt: skip
SAFE_SYSCTLS = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
})  # fmt: skip
SELINUX_TYPES = frozenset({
    "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t",
})  # fmt: skip


def violations(pod_spec: Fields) -> list[str]:
    """What in a pod's spec the *restricted* level refuses; empty where it admits the pod.

    Args:
        pod_spec: a v1 PodSpec as JSON; init and ephemeral containers are checked too.
    """
    return [text for check in _CHECKS for text in check(pod_spec)]


def containers(pod_spec: Fields) -> Iterator[Fields]:
    """Every container of a pod, those that run first included."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod_spec.get(field) or ()


def _host_namespaces(spec: Fields) -> Iterator[str]:
    used = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if used:
        yield f"host namespaces ({', '.join(f'{name}=true' for name in used)})"


def _privileged(spec: Fields) -> Iterator[str]:
    yield from _named(spec, "privileged", "must not set securityContext.privileged=true",
                      lambda c: bool(_context(c).get("privileged")))  # fmt: skip


def _host_ports(spec: Fields) -> Iterator[str]:
    yield from _named(spec, "hostPort", "must not use host ports",
                      lambda c: any(p.get("hostPort") for p in c.get("ports") or ()))  # fmt: skip


def _volumes(spec: Fields) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        bad = sorted(set(volume) - {"name"} - VOLUME_TYPES)
        if bad:
            yield f'restricted volume types (volume "{volume["name"]}" uses {", ".join(bad)})'


def _escalation(spec: Fields) -> Iterator[str]:
    yield from _named(
        spec,
        "allowPrivilegeEscalation != false",
        "must set securityContext.allowPrivilegeEscalation=false",
        lambda c: _context(c).get("allowPrivilegeEscalation") is not False,
    )


def _capabilities(spec: Fields) -> Iterator[str]:
    yield from _named(
        spec,
        "unrestricted capabilities",
        'must set securityContext.capabilities.drop=["ALL"]',
        lambda c: "ALL" not in (_capability(c, "drop")),
    )
    yield from _named(
        spec,
        "unrestricted capabilities",
        "must add no capability but NET_BIND_SERVICE",
        lambda c: bool(set(_capability(c, "add")) - {"NET_BIND_SERVICE"}),
    )


def _non_root(spec: Fields) -> Iterator[str]:
    whole = _context(spec).get("runAsNonRoot")
    yield from _named(
        spec,
        "runAsNonRoot != true",
        "pod or container must set securityContext.runAsNonRoot=true",
        lambda c: _context(c).get("runAsNonRoot", whole) is not True,
    )


def _root_user(spec: Fields) -> Iterator[str]:
    if _context(spec).get("runAsUser") == 0:
        yield "runAsUser=0 (pod must not set runAsUser=0)"
    yield from _named(spec, "runAsUser=0", "must not set runAsUser=0",
                      lambda c: _context(c).get("runAsUser") == 0)  # fmt: skip


def _seccomp(spec: Fields) -> Iterator[str]:
    whole = _context(spec).get("seccompProfile")

    def loose(container: Fields) -> bool:
        profile = _context(container).get("seccompProfile") or whole or {}
        return profile.get("type") not in ("RuntimeDefault", "Localhost")

    yield from _named(
        spec,
        "seccompProfile",
        'pod or container must set securityContext.seccompProfile.type to "RuntimeDefault" or'
        ' "Localhost"',
        loose,
    )


def _proc_mount(spec: Fields) -> Iterator[str]:
    yield from _named(
        spec,
        "procMount",
        "must not set securityContext.procMount",
        lambda c: _context(c).get("procMount", "Default") != "Default",
    )


def _selinux(spec: Fields) -> Iterator[str]:
    for owner in (spec, *containers(spec)):
        options = _context(owner).get("seLinuxOptions") or {}
        if (
            options.get("type", "") not in SELINUX_TYPES
            or options.get("user")
            or options.get("role")
        ):
            yield f"seLinuxOptions (forbidden values in {owner.get('name', 'pod')!r})"


def _sysctls(spec: Fields) -> Iterator[str]:
    named = [s["name"] for s in _context(spec).get("sysctls") or ()]
    bad = sorted(set(named) - SAFE_SYSCTLS)
    if bad:
        yield f"forbidden sysctls ({', '.join(bad)})"


def _windows(spec: Fields) -> Iterator[str]:
    for owner in (spec, *containers(spec)):
        if (_context(owner).get("windowsOptions") or {}).get("hostProcess"):
            yield f"hostProcess (forbidden in {owner.get('name', 'pod')!r})"


def _probe_hosts(spec: Fields) -> Iterator[str]:
    def names_host(container: Fields) -> bool:
        hooks = [container.get(p) for p in ("livenessProbe", "readinessProbe", "startupProbe")]
        hooks += (container.get("lifecycle") or {}).values()
        calls = [(hook or {}).get(kind) for hook in hooks for kind in ("httpGet", "tcpSocket")]
        return any((call or {}).get("host") for call in calls)

    yield from _named(spec, "probe or lifecycle host", "must not set host", names_host)


def _named(spec: Fields, title: str, rule: str, broken: Callable[[Fields], bool]) -> Iterator[str]:
    names = [f'"{c.get("name", "")}"' for c in containers(spec) if broken(c)]
    if names:
        many = "containers" if len(names) > 1 else "container"
        yield f"{title} ({many} {', '.join(names)} {rule})"


def _context(owner: Fields) -> Fields:
    return owner.get("securityContext") or {}


def _capability(container: Fields, which: str) -> list[str]:
    return (_context(container).get("capabilities") or {}).get(which) or []


_CHECKS: tuple[Callable[[Fields], Iterator[str]], ...] = (
    _host_namespaces, _privileged, _host_ports, _volumes, _escalation, _capabilities, _non_root,
    _root_user, _seccomp, _proc_mount, _selinux, _sysctls, _windows, _probe_hosts,
)  # fmt: skip
