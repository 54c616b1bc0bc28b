"""Whatever happened: the report, and how the run ended."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().tools, install_kfp_package=False)
def report(
    root: str,
    run: str,
    job: str,
    status: dsl.PipelineTaskFinalStatus,
    page: dsl.Output[dsl.HTML],  # type: ignore[type-arg]
) -> None:
    """Write `report.html` and `outcome.json`, after success and after failure alike."""
    from pathlib import Path

    from exsearch.em.record import end_run
    from exsearch.storage import join

    folder = run or join(root, "runs", job)
    html = end_run(folder, str(status.state), status.error_message or "")
    Path(page.path).parent.mkdir(parents=True, exist_ok=True)
    Path(page.path).write_text(html, encoding="utf-8")
