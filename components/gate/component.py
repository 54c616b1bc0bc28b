"""Does the candidate replace the champion? Decided by rule on the same test questions."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().tools, install_kfp_package=False)
def gate(
    settings: str,
    decision: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
) -> str:
    """Compare by paired bootstrap, write `summary.json`, and say whether to promote.

    Returns:
        `promoted`, or `kept`: whether the newest model replaces the one the run started from.
    """
    from exsearch.components.entry import running

    with running(settings, "gate") as run:
        summary = run.steps.conclude()
        verdict = summary["gate"]
        run.voice.note(("promoted: " if verdict["promoted"] else "kept: ") + verdict["reason"])
        gain = verdict["figures"]["comparison"]
        decision.metadata.update(
            promoted=float(verdict["promoted"]),
            gain=gain["gain"],
            gain_low=gain["ci"][0],
            gain_high=gain["ci"][1],
            p=gain["p"],
            reason=verdict["reason"],
        )
        return "promoted" if verdict["promoted"] else "kept"
