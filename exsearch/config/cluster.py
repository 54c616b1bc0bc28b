"""Settings of the cluster: images, storage, resources, queues, where training runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from exsearch.config.section import Section


class ImagesConfig(Section):
    """One image per role; a tag or, better, a digest."""

    tools: str = "exsearch/tools:0.1.0"
    """Pipeline steps that neither search nor compute: checks, gate, deploy, the launcher."""
    retriever: str = "exsearch/retriever:0.1.0"
    """ColBERT: indexing, warm-up data, the retriever service."""
    rollout: str = "exsearch/rollout:0.1.0"
    """vLLM and ColBERT: rollouts and evaluation."""
    trainer: str = "exsearch/trainer:0.1.0"
    """DeepSpeed: the training pods."""
    agent: str = "exsearch/agent:0.1.0"
    """The serving predictor."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes fetch images."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with registry credentials."""


class StorageConfig(Section):
    """Where run folders, models and indexes live."""

    root: str = "/mnt/exsearch"
    """Folder or URL of everything kept: `ROOT/runs/…`, `ROOT/champion.json`."""
    claim: str = "exsearch"
    """PersistentVolumeClaim mounted in every pod; empty: none."""
    mount: str = "/mnt/exsearch"
    """Where the claim is mounted."""
    size: str = "500Gi"
    """Size asked of the claim."""
    access: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Access mode asked of the claim; ReadWriteOnce will do on a cluster of one node."""
    storage_class: str = ""
    """Its storage class; empty: the cluster's default."""
    secret: str = ""
    """Secret with object-store credentials; empty: none."""
    secret_keys: tuple[str, ...] = (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
        "AWS_DEFAULT_REGION",
    )
    """Its keys that become environment variables of the same names, where it has them."""
    scratch: str = "20Gi"
    """Limit of each pod's scratch space (`/tmp`, caches)."""


class Resources(Section):
    """What one pod asks for; limits equal requests for memory and GPUs."""

    cpu: str = "2"
    """CPU request, as Kubernetes writes quantities."""
    memory: str = "8Gi"
    """Memory request and limit."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of `cluster.gpu`."""


class Toleration(Section):
    """A taint that pods may ignore (core/v1 Toleration)."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class ElasticConfig(Section):
    """torchrun's elastic range of nodes."""

    min_nodes: int = Field(default=1, ge=1)
    max_nodes: int = Field(default=4, ge=1)
    max_restarts: int = Field(default=3, ge=0)
    """Times the worker group is restarted after a member is lost."""


class TrainingPlacement(Section):
    """Where `sft` and `align` run."""

    launcher: Literal["local", "pytorchjob", "trainjob"] = "local"
    """Processes of the step's own pod (or laptop), a PyTorchJob, or a Trainer v2 TrainJob."""
    nodes: int = Field(default=1, ge=1)
    """Pods."""
    resources: Resources = Resources(cpu="8", memory="64Gi")
    """Of each pod; its GPUs are its processes (one process where it has none)."""
    elastic: ElasticConfig | None = None
    """A range of nodes instead of a fixed number (PyTorchJob only)."""
    shared_memory: str = "8Gi"
    """Size of /dev/shm, which NCCL and data loaders use."""
    environment: dict[str, str] = Field(default_factory=dict)
    """More environment: NCCL_SOCKET_IFNAME, NCCL_IB_HCA, …"""
    extra_resources: dict[str, str] = Field(default_factory=dict)
    """More resources per pod, for example `rdma/hca: "1"`."""
    runtime: str = "torch-distributed"
    """ClusterTrainingRuntime that a TrainJob refers to."""
    backoff_limit: int = Field(default=3, ge=0)
    """Pod failures before the job fails."""
    deadline: int = Field(default=86_400, ge=1)
    """Seconds a training job may be active."""
    keep: int = Field(default=86_400, ge=0)
    """Seconds a finished job is kept before the operator removes it."""
    queue_deadline: int = Field(default=21_600, ge=1)
    """Seconds a job may wait for its pods to start."""


class DeployTarget(Section):
    """The InferenceService that serves the champion."""

    name: str = "exsearch"
    """Its name; empty: promotion changes the champion record only."""
    namespace: str = ""
    """Its namespace; empty: `cluster.namespace`."""
    canary_percent: int = Field(default=0, ge=0, le=100)
    """Traffic for a newly promoted model (Knative mode); 0: all at once."""
    agent: str = ""
    """SearchAgent that takes promotions over, instead of an InferenceService (its operator sets
    this)."""
    withdrawn: tuple[str, ...] = ()
    """Digests of models that were taken out of service: no run starts from one of them."""


class ClusterConfig(Section):
    """Kubernetes: what pods are made of and where they go. A laptop run reads none of it."""

    namespace: str = "exsearch"
    """Namespace of every object."""
    images: ImagesConfig = ImagesConfig()
    storage: StorageConfig = StorageConfig()
    training: TrainingPlacement = TrainingPlacement()
    deploy: DeployTarget = DeployTarget()
    index: Resources = Resources(cpu="4", memory="16Gi")
    """Each pod that encodes passages, and the one that merges them."""
    rollout: Resources = Resources(cpu="4", memory="32Gi")
    """Each pod that samples or evaluates."""
    tools: Resources = Resources(cpu="500m", memory="2Gi")
    """Each pod that does neither."""
    predictor: Resources | None = None
    """The container that serves, of a SearchAgent; unset: as `rollout`."""
    retriever: Resources | None = None
    """The retriever beside it; unset: as `index`."""
    gpu: str = "nvidia.com/gpu"
    """The GPU's resource name."""
    gpu_selector: dict[str, str] = Field(default_factory=dict)
    """Node labels of pods with GPUs, for example `nvidia.com/gpu.product`."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Node labels of every pod."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that pods may ignore."""
    queue: str = ""
    """Kueue LocalQueue of the training jobs; empty: no queue."""
    priority_class: str = ""
    """PriorityClass of the pods; empty: none."""
    service_account: str = "exsearch-pipeline"
    """Service account of the pipeline's runs. Kubeflow Pipelines knows one for a whole run, so it
    may do what launching a training job and patching the InferenceService take, and no more."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels put on every object."""
