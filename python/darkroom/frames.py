"""What the child and its node say to each other: one JSON object a line, `{request_id, action, data}`, at most 1 MiB.

The schemas below are the twin of src/workers/python/protocol.ts; test/fixtures/protocol/ holds one message of every kind and is read by the
tests of both sides.
"""

import json
import re

VERSION = 1
# Longest line either side may send, newline included, in bytes.
LINE_CAP = 1_048_576
# Largest whole number that both sides hold exactly; no figure is larger.
MOST = 2**53 - 1
HEARTBEAT_S = 2.0


class ProtocolError(Exception):
    """A message that is none of this protocol; `path` names the field."""

    def __init__(self, path, problem):
        super().__init__(f"{path or 'frame'}: {problem}")
        self.path = path


# --- a schema is a function (value, path) that raises ProtocolError ---


def _fail(path, problem, value):
    raise ProtocolError(path, f"{problem}, not {json.dumps(value, default=str)[:100]}")


def text(value, path):
    if not isinstance(value, str):
        _fail(path, "must be a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can spell half a surrogate pair; no tokenizer reads it.
        _fail(path, "must be text of whole characters", value)


def flag(value, path):
    if not isinstance(value, bool):
        _fail(path, "must be true or false", value)


def number(low=None):
    def check(value, path):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -MOST <= value <= MOST:
            _fail(path, "must be a number", value)
        if low is not None and value < low:
            _fail(path, f"must be at least {low}", value)

    return check


def whole(low=0, step=1):
    def check(value, path):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MOST:
            _fail(path, f"must be a whole number of at least {low}", value)
        if value % step:
            _fail(path, f"must be a multiple of {step}", value)

    return check


def pattern(expression, what):
    compiled = re.compile(expression)

    def check(value, path):
        if not isinstance(value, str) or not compiled.fullmatch(value):
            _fail(path, f"must be {what}", value)

    return check


def one_of(*values):
    def check(value, path):
        if value not in values or isinstance(value, bool):
            _fail(path, f"must be one of {list(values)}", value)

    return check


def nullable(schema):
    return lambda value, path: None if value is None else schema(value, path)


def listing(schema):
    def check(value, path):
        if not isinstance(value, list):
            _fail(path, "must be a list", value)
        for index, item in enumerate(value):
            schema(item, f"{path}.{index}")

    return check


def mapping(schema=None):
    def check(value, path):
        if not isinstance(value, dict):
            _fail(path, "must be an object", value)
        for key, item in value.items():
            if schema:
                schema(item, f"{path}.{key}")

    return check


def shape(fields, optional=()):
    """Exactly these fields; those in `optional` may be absent."""

    def check(value, path):
        if not isinstance(value, dict):
            _fail(path, "must be an object", value)
        for key in value:
            if key not in fields:
                raise ProtocolError(f"{path}.{key}".lstrip("."), "there is no such field")
        for key, schema in fields.items():
            if key in value:
                schema(value[key], f"{path}.{key}".lstrip("."))
            elif key not in optional:
                raise ProtocolError(f"{path}.{key}".lstrip("."), "is missing")

    return check


seconds = number(0)
sha256 = pattern(r"[0-9a-f]{64}", "64 hex digits")
location = pattern(r"/[^\0\ud800-\udfff]*", "an absolute path")

MODEL = shape({"id": text, "path": location, "body_hash": sha256, "family": one_of("sd1")})
FILE_GIVEN = shape({"path": location, "sha256": sha256})
FILE_MADE = shape({"path": location, "sha256": sha256, "bytes": whole()})
CHECKPOINT_GIVEN = shape({"path": location, "sha256": sha256, "call": whole()})
CHECKPOINT_FIELDS = {"path": location, "sha256": sha256, "bytes": whole(), "call": whole()}

NOTHING = shape({})
TARGET = shape({"target": text})
PROMPT = {"model": MODEL, "prompt": text, "negative_prompt": text}
SIZE = {"width": whole(8, 8), "height": whole(8, 8)}
DENOISE = {**PROMPT, **SIZE, "steps": whole(1), "guidance": number(), "seed": whole(), "sampler": text}


def _work(fields):
    return shape(
        {
            "session_id": text,
            "dir": location,
            "files": mapping(FILE_GIVEN),
            "checkpoint": nullable(CHECKPOINT_GIVEN),
            "input": shape(fields),
        }
    )


REQUESTS = {
    "worker.hello": shape(
        {
            "protocol": shape({"min": whole(), "max": whole()}),
            "worker_id": text,
            "device": text,
            "threads": whole(1),
            "roots": shape({"models": listing(location), "attempts": location}),
            "checkpoint": shape({"interval_s": seconds, "calls": nullable(whole(1))}),
        }
    ),
    "worker.ping": NOTHING,
    "worker.pause": TARGET,
    "worker.cancel": TARGET,
    "worker.shutdown": NOTHING,
    "model.ensure": shape({"model": MODEL}),
    "memory.trim": shape({"idle_models": whole()}),
    "inference.encode": _work(PROMPT),
    "inference.denoise": _work(DENOISE),
    "inference.decode": _work({"model": MODEL, **SIZE}),
}

VITALS = shape(
    {
        "uptime_s": seconds,
        "rss_bytes": whole(),
        "device_bytes": nullable(whole()),
        "allocated_bytes": nullable(whole()),
        "busy": nullable(
            shape({"request_id": text, "action": text, "call": nullable(whole()), "advanced_s": seconds}),
        ),
        "sessions": mapping(whole()),
        "models": listing(shape({"id": text, "bytes": whole(), "is_idle": flag, "used_s": seconds})),
    }
)
READY = shape(
    {
        "protocol": one_of(VERSION),
        "pid": whole(1),
        "build": shape(
            {
                "python": text,
                "torch": text,
                "diffusers": text,
                "transformers": text,
                "tokenizers": text,
                "safetensors": text,
                "numerics": whole(),
            }
        ),
        "hardware": shape(
            {
                "kind": text,
                "name": text,
                "uuid": nullable(text),
                "index": whole(),
                "capability": nullable(text),
                "driver": nullable(text),
                "total_bytes": nullable(whole()),
                "arch": text,
                "vector": text,
                "math": text,
                "threads": whole(1),
            }
        ),
        "settings": shape({"dtype": text, "attention": text, "deterministic": flag, "tf32": flag, "tiling": flag, "offload": text}),
    }
)
OUTPUTS = {
    "worker.hello": READY,
    "worker.ping": VITALS,
    "worker.pause": NOTHING,
    "worker.cancel": NOTHING,
    "worker.shutdown": NOTHING,
    "model.ensure": shape({"id": text, "resident": flag, "bytes": whole(), "seconds": seconds}),
    "memory.trim": shape({"freed_bytes": nullable(whole()), "models": listing(text)}),
    "inference.encode": NOTHING,
    "inference.denoise": NOTHING,
    "inference.decode": shape(SIZE),
}
UNASKED = {"worker.hello": shape({"protocol": whole(), "pid": whole(1)}), "worker.heartbeat": VITALS}

REPLIES = {
    "accepted": shape({"type": text}),
    "progress": shape(
        {"type": text, "stage": text, "call": whole(), "calls": whole(), "rate": seconds, "eta_s": seconds},
        optional=("call", "calls", "rate", "eta_s"),
    ),
    "checkpoint": shape({"type": text, **CHECKPOINT_FIELDS}),
    "result": shape({"type": text, "output": mapping(), "files": mapping(FILE_MADE), "stats": mapping()}),
    "released": shape({"type": text, "checkpoint": nullable(shape(CHECKPOINT_FIELDS))}),
    "error": shape(
        {
            "type": text,
            "code": text,
            "class": one_of("transient", "resource", "permanent", "cancelled"),
            "message": text,
            "remedy": text,
            "field": text,
            "details": mapping(),
        },
        optional=("field", "details"),
    ),
}
ENVELOPE = shape({"request_id": pattern(r"(?s).{1,64}", "1 to 64 characters"), "action": text, "data": mapping()})


def decode(line):
    """A line (bytes, without its newline) as (request_id, action, data), the data unchecked. Raises ProtocolError."""

    def constant(name):
        raise ProtocolError("", f"{name} is no JSON")

    try:
        frame = json.loads(line.decode("utf-8"), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("", f"is not JSON: {error}") from None
    ENVELOPE(frame, "")
    return frame["request_id"], frame["action"], frame["data"]


def check_request(action, data):
    """Raises ProtocolError unless `data` is what the action takes; KeyError when there is no such action."""
    REQUESTS[action](data, "")


def check_reply(request_id, action, data):
    """Raises ProtocolError unless the child may say this."""
    if request_id == "0":
        if action not in UNASKED:
            raise ProtocolError("action", f"{action} is not sent unasked")
        UNASKED[action](data, "")
        return
    kind = data.get("type")
    if action not in REQUESTS and kind != "error":
        raise ProtocolError("action", f"there is no action {action}")
    if kind not in REPLIES:
        raise ProtocolError("type", f"there is no reply {kind}")
    REPLIES[kind](data, "")
    if kind == "result":
        OUTPUTS[action](data["output"], "output")


def encode(request_id, action, data):
    """One frame as the bytes to send, newline included. Raises ProtocolError when it is over the cap, ValueError for NaN."""
    frame = {"request_id": request_id, "action": action, "data": data}
    line = json.dumps(frame, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > LINE_CAP:
        raise ProtocolError("", f"has {len(line)} bytes, the cap is {LINE_CAP}")
    return line


def result(output=None, files=None, stats=None):
    return {"type": "result", "output": output or {}, "files": files or {}, "stats": stats or {}}
