"""E-step, first half: one shard's trajectories, sampled by vLLM."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().rollout, install_kfp_package=False)
def rollout(
    settings: str,
    number: int,
    shard: int,
    shards: int,
    trajectories: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
) -> None:
    """Sample K trajectories for every question of this shard; resumes after a kill."""
    from exsearch.components.entry import point, running

    with running(settings, f"rollout-{number}-{shard}") as run:
        reason = run.steps.reason_to_stop(number)
        if reason is not None:
            run.voice.note(f"round {number} is not run: {reason}")
            point(trajectories, "", skipped=reason)
        else:
            path = run.do(run.steps.rollout(number, shard, shards))
            point(trajectories, path, round=number, shard=shard, shards=shards)
