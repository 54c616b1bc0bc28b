"""A Kubernetes API server for tests: a real one where its binaries are given, else a stand-in.

    from kube_api.cluster import open_cluster

`KUBEBUILDER_ASSETS` names the folder of etcd and kube-apiserver. The stand-in serves discovery,
built-in kinds and custom ones with schemas, watches, patches, server-side apply, RBAC and pod
security over HTTPS; `kube_api.cluster` says what it leaves out.
"""
