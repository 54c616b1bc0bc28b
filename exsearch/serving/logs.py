"""Logs that machines read: one JSON object per line, with what happened and to which request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was logged beside the message: `log.info("answered", extra={"fields": {…}})`."""
    found: dict[str, Any] = getattr(record, "fields", {})
    return found


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "event", …}` per line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return text.encode(errors="replace").decode()  # a lone surrogate must not stop the log


class TextLines(logging.Formatter):
    """The same for people. Line breaks in values are escaped: a request cannot forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        more = " ".join(f"{key}={json.dumps(value)}" for key, value in fields(record).items())
        line = f"{record.levelname.lower():8}{record.getMessage()}  {more}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(style: str) -> None:
    """Send this process's logs to stderr: ours from INFO on, libraries' from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("exsearch").setLevel(logging.INFO)
