"""Logs: one JSON object a line on stderr, `{ts, level, logger, msg, request_id?}`. The node logs them again as its own."""

import json
import logging
import sys
import threading
import time
import traceback

LONGEST = 16_384
LEVELS = {"WARNING": "warn", "CRITICAL": "error"}


class JsonLines(logging.Formatter):
    def format(self, record):
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + "".join(traceback.format_exception(*record.exc_info))
        entry = {
            "ts": round(time.time(), 3),
            "level": LEVELS.get(record.levelname, record.levelname.lower()),
            "logger": record.name,
            "msg": message[:LONGEST],
        }
        if hasattr(record, "request_id"):
            entry["request_id"] = record.request_id
        return json.dumps(entry)


def start():
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger("darkroom")
    threading.excepthook = lambda thrown: logger.error(
        "thread %s died",
        thrown.thread and thrown.thread.name,
        exc_info=(thrown.exc_type, thrown.exc_value, thrown.exc_traceback),
    )
    return logger


def quiet_libraries():
    """Progress bars and advice of the libraries are nobody's to read here."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    for name in ("py.warnings", "httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
