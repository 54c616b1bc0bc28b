"""Events: what people read under `kubectl describe searchagent`."""

from __future__ import annotations

import logging

from exsearch.errors import InputError
from exsearch.kube.answers import EVENTS, Exists, Refused
from exsearch.kube.client import Api, Object
from exsearch.operator.kinds import GROUP, KIND, MANAGER, VERSION
from exsearch.operator.models import timestamp
from exsearch.operator.promotion import Told
from exsearch.storage import digest_bytes

log = logging.getLogger(__name__)


def event(agent: Object, told: Told, now: float) -> Object:
    """The Event (v1) of something that happened to an agent.

    Its name is made of what it tells, so that an operator that was stopped between telling
    and noting that it told tells it once.

    Args:
        agent: its metadata.
        now: seconds since the epoch.
    """
    name, namespace = agent["name"], agent["namespace"]
    digest = digest_bytes(agent["uid"].encode(), told.reason.encode(), told.key.encode())
    moment = timestamp(now)[:-5] + "Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": namespace,
            "name": name,
            "uid": agent["uid"],
        },
        "type": "Warning" if told.warning else "Normal",
        "reason": told.reason,
        # The API takes 1,024 characters.
        "message": told.message[:1000],
        "source": {"component": MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


async def tell(api: Api, agent: Object, told: Told, now: float) -> None:
    """Post an event. One that cannot be posted is logged: nothing waits for it.

    Raises:
        ExSearchError: the API does not answer at all.
    """
    try:
        await api.create(EVENTS, event(agent, told, now))
    except Exists:
        return
    except (Refused, InputError) as error:
        log.warning("%s/%s: no event %s: %s", agent["namespace"], agent["name"], told.reason, error)
