"""`exsearch agent`: what serves, the end of a canary, and the way back.

With a NAME each command is about that SearchAgent, and asks its operator; without, about the
record on the volume and the InferenceService of the settings.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from exsearch.cli import common
from exsearch.config import RunConfig
from exsearch.errors import InputError

if TYPE_CHECKING:
    from exsearch.em.champion import Champion
    from exsearch.kube.serving import Service
    from exsearch.operator.client import Request

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The agent in service: its status, the end of a canary, the way back.\n\n"
    "With a NAME, the SearchAgent of that name, kept by its operator.\n\n"
    "Example: `exsearch agent rollback --config run.yaml`, `exsearch agent status wiki`",
)

RootOption = Annotated[
    str,
    typer.Option("--root", help="Where champion.json is; default: cluster.storage.root."),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="[NAME]", help="A SearchAgent; none: the settings' own service.")
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="Of the SearchAgent; default: cluster.namespace.")
]


@app.command()
def status(
    name: NameArgument = "",
    namespace: NamespaceOption = "",
    root: RootOption = "",
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Print the champion, those before it, and what the InferenceService serves.

    Without a cluster (`cluster.deploy.name` is empty) the record only.

    Example: `exsearch agent status --config run.yaml`
    """
    from exsearch.em.champion import read_champion
    from exsearch.kube.serving import find_service

    run = common.settings(config, overrides)
    if name:
        _show(name, namespace or run.cluster.namespace, as_json=as_json)
        return
    record, service = read_champion(_root(run, root)), find_service(run.cluster)
    if as_json:
        common.print_json(_document(record, service))
        return
    if record is None:
        _tell("no model has been promoted yet")
    else:
        common.console.print(_table(record, service))
    if service is not None:
        _tell_service(service)
    elif run.cluster.deploy.name:
        _tell(f"there is no InferenceService {run.cluster.deploy.name}")


@app.command()
def promote(
    name: NameArgument = "",
    namespace: NamespaceOption = "",
    root: RootOption = "",
    dry_run: common.DryRunOption = False,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """End the canary: the champion of the record gets all the traffic.

    Also the way to put the champion back into an InferenceService that was applied anew.

    Example: `exsearch agent promote --config run.yaml`
    """
    from exsearch.em.champion import champion_path, read_champion
    from exsearch.kube.deploy import serve

    run = common.settings(config, overrides)
    if name:
        _ask("promote", name, namespace or run.cluster.namespace, dry_run=dry_run)
        return
    place = _root(run, root)
    record = read_champion(place)
    if record is None:
        raise InputError(
            f"{champion_path(place)} is not there: no model has been promoted. --root "
            "(cluster.storage.root) says where the record is"
        )
    if not run.cluster.deploy.name:
        raise InputError(
            "cluster.deploy.name is empty: there is no InferenceService whose traffic could change"
        )
    serve(record.current, run.cluster, _tell, canary=False, dry_run=dry_run)
    if as_json:
        common.print_json({"champion": record.current.model_dump(), "dry_run": dry_run})


@app.command()
def rollback(
    name: NameArgument = "",
    namespace: NamespaceOption = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the record.")
    ] = "rolled back by hand",
    root: RootOption = "",
    dry_run: common.DryRunOption = False,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Serve the previous champion again, at once and for all traffic.

    The model that is withdrawn stays in the history with the reason, and is not promoted
    again. The previous one is checked first: it must be there, with the weights it had when
    it was promoted. Rolling back again goes back by one more.

    Example: `exsearch agent rollback --config run.yaml --reason "worse on dates"`
    """
    from exsearch.em.champion import restorable, roll_back
    from exsearch.kube.deploy import restore

    run = common.settings(config, overrides)
    if name:
        _ask("rollback", name, namespace or run.cluster.namespace, reason, dry_run=dry_run)
        return
    place = _root(run, root)
    seen, target = restorable(place)
    # The service first: where this fails nothing has changed, and the same command may be run
    # again. The record first would go back by one more the second time.
    restore(target, run.cluster, _tell, dry_run=dry_run)
    record = seen if dry_run else roll_back(place, seen, target, reason or "no reason given")
    if as_json:
        common.print_json(
            {
                "champion": target.model_dump() if dry_run else record.current.model_dump(),
                "withdrawn": seen.current.model,
                "dry_run": dry_run,
            }
        )
    would = "would be" if dry_run else "is"
    _tell(f"{target.model} {would} the champion again; {seen.current.model} {would} withdrawn")


@app.command()
def pause(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A SearchAgent.")],
    namespace: NamespaceOption = "",
    dry_run: common.DryRunOption = False,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
) -> None:
    """Start no further runs of a SearchAgent. What serves goes on serving.

    Example: `exsearch agent pause wiki --namespace search`
    """
    run = common.settings(config, overrides)
    _ask("pause", name, namespace or run.cluster.namespace, dry_run=dry_run)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A SearchAgent.")],
    namespace: NamespaceOption = "",
    dry_run: common.DryRunOption = False,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
) -> None:
    """Let the runs of a SearchAgent start again.

    Example: `exsearch agent resume wiki --namespace search`
    """
    run = common.settings(config, overrides)
    _ask("resume", name, namespace or run.cluster.namespace, dry_run=dry_run)


def _ask(request: Request, name: str, namespace: str, reason: str = "", *, dry_run: bool) -> None:
    """Ask a SearchAgent's operator for something."""
    from exsearch.operator.client import ask, change

    if dry_run:
        _tell(f"would patch SearchAgent {namespace}/{name}: {change(request, reason)}")
        return
    ask(request, name, namespace, reason)
    _tell(f"SearchAgent {namespace}/{name}: {request} is asked for; its operator carries it out")


def _show(name: str, namespace: str, *, as_json: bool) -> None:
    """A SearchAgent's status."""
    from exsearch.operator.client import find, lines

    agent = find(name, namespace)
    if as_json:
        common.print_json(agent.get("status", {}))
        return
    _tell("\n".join(lines(agent)))


def _root(run: RunConfig, given: str) -> str:
    return given or run.cluster.storage.root


def _tell(text: str) -> None:
    common.console.print(text, markup=False)


def _document(record: Champion | None, service: Service | None) -> dict[str, object]:
    return {
        "champion": None if record is None else record.current.model_dump(mode="json"),
        "history": [] if record is None else [p.model_dump(mode="json") for p in record.history],
        "service": None if service is None else service.model_dump(mode="json"),
    }


def _table(record: Champion, service: Service | None) -> Table:
    """The champion and those before it, the newest first."""
    table = Table(title="Champions", title_justify="left")
    for name in ("", "since", "model", "digest", "measured", "reason"):
        table.add_column(name, overflow="fold")
    for number, promotion in enumerate((record.current, *record.history)):
        served = service is not None and promotion.digest == service.digest and number == 0
        state = "withdrawn" if promotion.withdrawn else "earlier" if number else "champion"
        measured = ", ".join(f"{name} {value:.3f}" for name, value in promotion.metrics.items())
        table.add_row(
            f"{state}, served" if served else state,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(promotion.promoted)),
            escape(promotion.model),
            promotion.digest,
            measured,
            escape(promotion.withdrawn or promotion.reason),
        )
    return table


def _tell_service(service: Service) -> None:
    """The InferenceService, for people."""
    state = "ready" if service.ready else f"not ready ({service.why})"
    lines = [
        f"InferenceService {service.namespace}/{service.name} ({service.mode}): {state}",
        f"  model {service.model} {service.digest}",
        f"  url   {service.url or 'none yet'}",
    ]
    if service.canary_percent is not None:
        lines.append(f"  canary: {service.canary_percent} % to the newest revision")
    for share in service.traffic:
        marks = " ".join(word for word in ("latest" * share.latest, share.tag, share.url) if word)
        lines.append(f"  {share.percent:3} %  {share.revision} {marks}")
    _tell("\n".join(lines))
