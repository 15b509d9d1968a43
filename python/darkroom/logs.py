"""Logs: one JSON object a line on stderr, `{ts, level, logger, msg, request_id?}`. The node logs them again as its own.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback

LONGEST = 16_384
LEVELS = {"WARNING": "warn", "CRITICAL": "error"}


class JsonLines(logging.Formatter):
    """One record a line, however many lines its message has."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + "".join(traceback.format_exception(*record.exc_info))
        entry = {
            "ts": round(time.time(), 3),
            "level": LEVELS.get(record.levelname, record.levelname.lower()),
            "logger": record.name,
            "msg": message[:LONGEST],
        }
        if (request_id := getattr(record, "request_id", None)) is not None:
            entry["request_id"] = request_id
        return json.dumps(entry)


def start() -> logging.Logger:
    """The child's logger; warnings and threads that die go there too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger("darkroom")
    threading.excepthook = lambda thrown: logger.error("thread %s died", thrown.thread and thrown.thread.name, exc_info=thrown.exc_value)
    return logger


def quiet_libraries() -> None:
    """Switches progress bars and advice of the libraries off: a log has no reader for them."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    for name in ("py.warnings", "httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
