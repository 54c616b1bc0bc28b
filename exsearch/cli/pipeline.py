"""`exsearch pipeline`: compile, submit, schedule, run and plan the recurring E&M pipeline."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from exsearch.cli import common
from exsearch.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The recurring E&M pipeline on Kubeflow: compile, submit, schedule, run here, plan.\n\n"
    "Example: `exsearch pipeline run --local --config examples/demo.yaml`",
)


@app.command()
def compile(
    output: Annotated[
        str, typer.Option("--output", "-o", help="Where the YAML is written.")
    ] = "exsearch-em.yaml",
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
) -> None:
    """Write the pipeline as YAML for Kubeflow Pipelines. Equal settings give equal bytes.

    Example: `exsearch pipeline compile --config run.yaml --output em.yaml`
    """
    from exsearch.pipelines.em import compile_to

    compile_to(common.settings(config, overrides), output)
    common.console.print(f"wrote {output}", markup=False)


@app.command()
def submit(
    name: Annotated[str, typer.Option("--name", help="The run's name; default: with time.")] = "",
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Start one run on the server at `pipeline.host`; uploads the pipeline if it changed.

    Example: `exsearch pipeline submit --config run.yaml`
    """
    from exsearch.pipelines.server import Server

    run = common.settings(config, overrides)
    called = name or f"{run.pipeline.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_id = Server(run).submit(called)
    if as_json:
        common.print_json({"run_id": run_id, "name": called})
    where = f"{run.pipeline.host}/#/runs/details/{run_id}"
    common.console.print(f"started {called}: {where}", markup=False)


@app.command()
def schedule(
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Make the recurring run, or bring the one there is to these settings; never a second one.

    Each run starts from the champion of its day. Times are `pipeline.schedule.cron`, six
    fields with seconds first.

    Example: `exsearch pipeline schedule --config run.yaml
    --set 'pipeline.schedule.cron="0 0 3 * * 6"'`
    """
    from exsearch.pipelines.server import Server

    run = common.settings(config, overrides)
    done = Server(run).schedule()
    if as_json:
        common.print_json(
            {
                "recurring_run_id": done.recurring_run_id,
                "change": done.change,
                "version": done.version.name,
            }
        )
    plan = run.pipeline.schedule
    state = "enabled" if plan.enabled else "disabled"
    common.console.print(
        f"{done.change}: {run.pipeline.name}, {plan.cron}, {state}, {done.version.name}",
        markup=False,
    )


@app.command()
def run(
    local: Annotated[
        bool, typer.Option("--local", help="On this machine, the components as processes.")
    ] = False,
    root: Annotated[
        str,
        typer.Option("--root", help="Folder or URL of runs, indexes and the champion's record."),
    ] = "runs/pipeline",
    name: Annotated[
        str, typer.Option("--name", help="The run; the same name goes on where it stopped.")
    ] = "local",
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Run the pipeline on this machine to its end: the same components, no cluster.

    Example: `exsearch demo --models-only && exsearch pipeline run --local
    --config examples/demo.yaml`
    """
    from exsearch.cli.voice import print_summary
    from exsearch.pipelines.local import HERE, run_local

    if not local:
        raise InputError(
            "say where: --local runs the pipeline on this machine; for a run on a cluster use "
            "`exsearch pipeline submit`"
        )
    summary = run_local(common.settings(config, overrides, *HERE), root, name)
    if as_json:
        common.print_json(summary)
    print_summary(common.console, summary, f"{summary['run']}/report.html")


@app.command()
def plan(
    passages: Annotated[int, typer.Option(min=1, help="Passages of the corpus.")] = 21_015_324,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Training questions a round; data.train_limit.")
    ] = None,
    test: Annotated[
        int | None, typer.Option(min=1, help="Test questions; data.eval_limit.")
    ] = None,
    rates: Annotated[
        str, typer.Option("--rates", help="YAML file with rates and their sources.")
    ] = "",
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Say what a run will take before anything is spent: pods, GPU-hours, storage, time.

    Without `--rates` it uses published figures for a 7B model, and says so.

    Example: `exsearch pipeline plan --config examples/wikipedia-7b.yaml --questions 20000`
    """
    from exsearch.pipelines.plan import Workload, load_rates, make_plan, plan_table

    run = common.settings(config, overrides)
    asked, measured = questions or run.data.train_limit, test or run.data.eval_limit
    if asked is None or measured is None:
        raise InputError(
            "how many questions? Give --questions and --test, or set data.train_limit and "
            "data.eval_limit"
        )
    work = Workload(
        passages=passages,
        questions=asked,
        test=measured,
        warmup=run.data.warmup_limit if run.data.warmup else 0,
    )
    found = make_plan(run, load_rates(rates), work)
    if as_json:
        common.print_json(found.model_dump(mode="json"))
    common.console.print(plan_table(found))
