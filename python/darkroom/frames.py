"""Frames, one JSON object a line: `{request_id, action, data}`. Read, checked against the schema, and written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import fastjsonschema

from darkroom.schema import DOCUMENT, LINE_CAP

# Largest whole number that both sides hold exactly; no figure is larger.
MAX_NUMBER = 2**53 - 1

REQUESTS: dict[str, Any] = DOCUMENT["requests"]


class ProtocolError(Exception):
    """A message that is none of this protocol; `path` names the field."""

    def __init__(self, path: str, problem: str):
        super().__init__(f"{path or 'frame'}: {problem}")
        self.path = path


def decode(line: bytes) -> tuple[str, str, dict[str, Any]]:
    """A line without its newline as (request_id, action, data), the data unchecked. Raises ProtocolError."""

    def constant(name: str) -> None:
        raise ProtocolError("", f"{name} is no JSON")

    try:
        frame = json.loads(line.decode("utf-8"), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("", f"is not JSON: {error}") from None
    _check(frame, "envelope")
    return frame["request_id"], frame["action"], frame["data"]


def check_request(action: str, data: dict[str, Any]) -> None:
    """Raises ProtocolError unless `data` is what the action takes; KeyError when there is no such action."""
    _check(data, "requests", action)
    _check_values(data, "")


def check_reply(request_id: str, action: str, data: dict[str, Any]) -> None:
    """Raises ProtocolError unless the child may say this."""
    kind = data.get("type")
    if request_id == "0":
        if action not in DOCUMENT["unasked"]:
            raise ProtocolError("action", f"{action} is not sent unasked")
        _check(data, "unasked", action)
    elif kind == "error":
        # Also the answer to an action that there is not.
        _check(data, "replies", kind)
    elif action not in REQUESTS:
        raise ProtocolError("action", f"there is no action {action}")
    elif kind == "result":
        _check(data, "results", action)
    elif isinstance(kind, str) and kind in DOCUMENT["replies"]:
        _check(data, "replies", kind)
    else:
        raise ProtocolError("type", f"there is no reply {kind}")
    _check_values(data, "")


def encode(request_id: str, action: str, data: dict[str, Any]) -> bytes:
    """One frame as the bytes to send, newline included. Raises ProtocolError when it is over the cap, ValueError for
    NaN."""
    frame = {"request_id": request_id, "action": action, "data": data}
    line = json.dumps(frame, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > LINE_CAP:
        raise ProtocolError("", f"has {len(line)} bytes, the cap is {LINE_CAP}")
    return line


def result(
    output: dict[str, Any] | None = None, files: dict[str, Any] | None = None, stats: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The data of a `result` frame."""
    return {"type": "result", "output": output or {}, "files": files or {}, "stats": stats or {}}


@functools.cache
def _validator(*path: str) -> Callable[[Any], None]:
    """Compiled when it is first needed: a child that draws sees a few of them."""
    schema = DOCUMENT
    for name in path:
        schema = schema[name]
    return fastjsonschema.compile(schema)


def _check(value: Any, *path: str) -> None:
    try:
        _validator(*path)(value)
    except fastjsonschema.JsonSchemaValueException as error:
        field, problem = _problem(error)
        raise ProtocolError(field, problem) from None


def _problem(error: fastjsonschema.JsonSchemaValueException) -> tuple[str, str]:
    """(path of the field, what is wrong with it)."""
    path = error.path[1:]
    if error.rule == "required":
        missing = next(name for name in error.rule_definition if name not in error.value)
        return ".".join([*path, missing]), "is missing"
    if error.rule == "additionalProperties" and error.rule_definition is False:
        surplus = next(name for name in error.value if name not in error.definition["properties"])
        return ".".join([*path, surplus]), "there is no such field"
    problem = error.message.removeprefix(error.name or "").strip()
    return ".".join(path), f"{problem}, not {json.dumps(error.value, default=str)[:100]}"


def _check_values(value: Any, path: str) -> None:
    """What JSON Schema does not say: whole characters, and numbers that both sides hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON can spell half a surrogate pair; no tokenizer and no file system reads it.
            raise ProtocolError(path, f"must be text of whole characters, not {json.dumps(value)[:100]}") from None
    elif isinstance(value, float | int):
        # JSON reads 1e999 as infinity. NaN goes on to `encode`, which refuses it.
        if value == value and not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise ProtocolError(path, f"must be a number of at most {MAX_NUMBER}")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_values(name, path)
            _check_values(item, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_values(item, f"{path}.{index}".lstrip("."))
