"""`exsearch operator`: the resource definition of SearchAgent, and the operator that keeps them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from exsearch.cli import common
from exsearch.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The SearchAgent operator: its resource definition, and the operator itself.\n\n"
    "Example: `exsearch operator crd | kubectl apply --server-side -f -`",
)


@app.command()
def crd(
    output: Annotated[
        str, typer.Option("--output", "-o", help="Where the YAML is written; default: stdout.")
    ] = "",
) -> None:
    """Print the CustomResourceDefinition of SearchAgent. Equal code gives equal bytes.

    Example: `exsearch operator crd --output crd.yaml`
    """
    from exsearch.operator.crd import as_yaml

    if not output:
        sys.stdout.write(as_yaml())
        return
    try:
        Path(output).write_text(as_yaml(), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write the definition to {output}: {error.strerror}. Name a file in a folder "
            "that exists and that you may write to"
        ) from error
    common.console.print(f"wrote {output}", markup=False)


@app.command()
def run(
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", help="Watch this namespace only. Repeatable."),
    ] = None,
    kubeconfig: Annotated[
        str,
        typer.Option("--kubeconfig", help="Default: the pod's own account, else KUBECONFIG."),
    ] = "",
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", min=0, help="Of /metrics and /healthz; 0: none.")
    ] = 8081,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", help="Address of that port; in a pod: 0.0.0.0.")
    ] = "127.0.0.1",
    leader: Annotated[
        bool,
        typer.Option("--leader/--no-leader", help="Act only while holding the Lease."),
    ] = True,
    lease_namespace: Annotated[
        str, typer.Option("--lease-namespace", help="Where the Lease lies.")
    ] = "exsearch-system",
) -> None:
    """Keep every SearchAgent as its spec says, until told to end.

    Several may run: one holds the Lease `exsearch-operator` and acts, the others stand by.

    Example: `exsearch operator run --kubeconfig ~/.kube/config --no-leader`
    """
    import logging

    from exsearch.operator import main
    from exsearch.operator.api import configuration_of

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # It warns of what is meant to be: a thread without signals, a cluster that it may not scan.
    logging.getLogger("kopf").setLevel(logging.ERROR)
    options = main.Options(
        namespaces=tuple(namespace or ()),
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        lead=leader,
        lease_namespace=lease_namespace,
    )
    main.run(configuration_of(kubeconfig), options)
