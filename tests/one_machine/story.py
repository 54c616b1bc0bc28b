"""The story: a SearchAgent is applied, trained, promoted if it is better, asked, and deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import yaml
from operator_scene import Object, conditions

from one_machine.machine import Machine

Say = Callable[[str], None]
LOOK = 0.5
"""Seconds between two looks at the agent."""


@dataclass
class Told:
    """How the story went."""

    champion: str
    """Folder of the model that the gate found better and the operator serves; empty: the gate
    kept what was there, and the base model serves."""
    answer: str = ""
    answered: Object = field(default_factory=dict)
    """The answer's own part: steps, citations, the model's digest."""
    events: list[str] = field(default_factory=list)


def tell_story(
    machine: Machine, agent: Object, questions: list[str], say: Say, patience: float
) -> Told:
    """Live through it.

    Args:
        agent: the SearchAgent.
        questions: asked one after the other until one is answered: a small model knows not all.
        patience: seconds that the pipeline's run may take.

    Raises:
        AssertionError: something did not happen, with what was said about it.
    """
    name = agent["metadata"]["name"]
    file = machine.volume.parent / "searchagent.yaml"
    file.write_text(yaml.safe_dump(agent))
    say(f"kubectl apply --server-side -f {file.name}")
    machine.kubectl("apply", "--server-side", "--validate=strict", "--filename", str(file))
    seen = Watched(machine, name, say)
    seen.until(lambda status: conditions(status)["Scheduled"] == ("True", "Scheduled"), 60)
    run = machine.kubeflow.trigger()
    say("its time has come: Kubeflow starts the recurring run")
    status = seen.until(lambda status: not _active(status), patience)
    state = status["lastRun"]["state"]
    assert state == "SUCCEEDED", f"the run ended {state}:\n{machine.kubeflow.said(run)[-4000:]}"
    status = seen.until(lambda status: _serves(machine, status), 600)
    told = Told(status.get("champion", {}).get("model", ""))
    _ask(status["url"], questions, told, say)
    say(machine.exsearch("agent", "status", name, "--namespace", agent["metadata"]["namespace"]))
    told.events = machine.agents.events(name)
    say(f"kubectl delete searchagent {name}")
    machine.kubectl("delete", "searchagent", name, "-n", agent["metadata"]["namespace"])
    return told


class Watched:
    """Looks at an agent, and says what changes."""

    def __init__(self, machine: Machine, name: str, say: Say) -> None:
        self._machine, self._name, self._say = machine, name, say
        self._said = ""
        self._events: set[str] = set()

    def until(self, check: Callable[[Object], Any], seconds: float) -> Object:
        """Wait until a check of the status gives something true; returns the status."""
        end = time.monotonic() + seconds
        status: Object = {}
        while time.monotonic() < end:
            self._machine.check()
            status = self._machine.agents.get(self._name).get("status", {})
            for line in self._news(status):
                self._say(line)
            try:
                if check(status):
                    return status
            except (KeyError, IndexError):
                pass  # not that far yet
            time.sleep(LOOK)
        raise AssertionError(f"not within {seconds:.0f} s; the status is {status}")

    def _news(self, status: Object) -> Iterator[str]:
        run = status.get("lastRun", {}).get("state", "none")
        now = f"phase {status.get('phase', 'none yet')}, last run {run}"
        if now != self._said:
            self._said = now
            yield now
        core, namespace = self._machine.cluster.core, self._machine.agents.namespace
        for event in core.list_namespaced_event(namespace).items:
            about = event.involved_object.name == self._name
            if about and event.metadata.name not in self._events:
                self._events.add(event.metadata.name)
                yield f"event {event.reason}: {event.message}"


def _active(status: Object) -> bool:
    return status["lastRun"]["state"] in ("PENDING", "RUNNING")


def _serves(machine: Machine, status: Object) -> bool:
    """The model of the champion's record is champion here, too, and it is what answers."""
    promoted = (machine.volume / "champion.json").exists()
    if promoted != ("champion" in status) or status["phase"] != "Serving":
        return False
    try:
        (served,) = httpx.get(f"{status['url']}/agent", timeout=10).json()["models"]
    except httpx.TransportError:
        return False  # its pod has been replaced, and the status is a moment old
    return not promoted or served["digest"] == status["champion"]["digest"]


def _ask(url: str, questions: list[str], told: Told, say: Say) -> None:
    client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="none", max_retries=0)
    refused: list[str] = []
    for question in questions:
        try:
            whole = client.chat.completions.create(
                model="exsearch", messages=[{"role": "user", "content": question}]
            )
        except openai.APIStatusError as error:
            refused.append(f"{question}: {error.status_code} {error.message}")
            continue
        extra: Any = whole
        told.answer = whole.choices[0].message.content or ""
        told.answered = extra.exsearch
        say(f"asked: {question}\nanswered: {told.answer}")
        return
    raise AssertionError("no question was answered:\n" + "\n".join(refused))
