"""What kind of pod each step gets on a cluster: image, resources, volumes, limits.

`kfp.local` reads none of it, so the same pipeline runs on a laptop.
"""

from __future__ import annotations

from typing import Literal

from kfp import dsl, kubernetes

from exsearch.config import ClusterConfig, Resources, RunConfig
from exsearch.kube.pod import OFF_THE_MESH, USER

Role = Literal["tools", "index", "rollout", "train"]


def place(
    task: dsl.PipelineTask, config: RunConfig, role: Role, *, cached: bool = False
) -> dsl.PipelineTask:
    """Give a step its pod.

    Args:
        role: `tools` steps neither search nor compute; `index` ones encode; `rollout` ones
            run the engine; `train` ones train, themselves or through a job of the cluster.
        cached: the step's inputs determine its output, so that Kubeflow may reuse it.
    """
    cluster, pipeline = config.cluster, config.pipeline
    images = cluster.images
    image, resources = _pod(cluster, role)
    task.set_container_image(image)
    task.set_caching_options(cached)
    task.set_retry(
        pipeline.retries,
        backoff_duration=pipeline.backoff,
        backoff_factor=2.0,
        backoff_max_duration="3600s",
    )
    _resources(task, resources, cluster)
    _storage(task, cluster)
    _scheduling(task, cluster)
    kubernetes.set_timeout(task, pipeline.step_timeout)
    kubernetes.set_image_pull_policy(task, images.pull_policy)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    for name, value in {"app.kubernetes.io/part-of": "exsearch", **cluster.labels}.items():
        kubernetes.add_pod_label(task, name, value)
    for name, value in OFF_THE_MESH.items():
        kubernetes.add_pod_annotation(task, name, value)
    if images.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(images.pull_secrets))
    return task


def _pod(cluster: ClusterConfig, role: Role) -> tuple[str, Resources]:
    """Image and resources of a role; whoever only launches a training needs little."""
    images, training = cluster.images, cluster.training
    if role == "index":
        return images.retriever, cluster.index
    if role == "rollout":
        return images.rollout, cluster.rollout
    if role == "train" and training.launcher == "local":
        return images.trainer, training.resources
    return images.tools, cluster.tools


def _resources(task: dsl.PipelineTask, asked: Resources, cluster: ClusterConfig) -> None:
    task.set_cpu_request(asked.cpu)
    task.set_memory_request(asked.memory)
    task.set_memory_limit(asked.memory)
    if asked.gpus:
        task.set_accelerator_type(cluster.gpu)
        task.set_accelerator_limit(asked.gpus)


def _storage(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    storage = cluster.storage
    if storage.claim:
        kubernetes.mount_pvc(task, storage.claim, storage.mount)
    kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=storage.scratch)
    if storage.secret:
        keys = {key: key for key in storage.secret_keys}
        kubernetes.use_secret_as_env(task, storage.secret, keys, optional=True)
    for name, value in {"HOME": "/tmp", "HF_HUB_OFFLINE": "1"}.items():
        task.set_env_variable(name, value)


def _scheduling(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    spec = task.container_spec
    gpus = spec is not None and spec.resources is not None and spec.resources.accelerator_count
    selector = {**cluster.node_selector, **(cluster.gpu_selector if gpus else {})}
    for key, value in selector.items():
        kubernetes.add_node_selector(task, key, value)
    for t in cluster.tolerations:
        kubernetes.add_toleration(
            task,
            key=t.key or None,
            operator=t.operator,
            value=t.value or None,
            effect=t.effect or None,  # type: ignore[arg-type]
        )
