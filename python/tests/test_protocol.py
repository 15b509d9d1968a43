import json
import re

import pytest
from conftest import ROOT

from darkroom import errors, protocol

FOLDER = ROOT / "test" / "fixtures" / "protocol"
# Every message there is; test/workers/python/protocol.unit.test.ts holds the same list.
FROM_NODE = [
    "hello", "ping", "pause", "cancel", "shutdown", "ensure", "trim", "encode", "denoise", "denoise-resumed",
    "decode",
]  # fmt: skip
FROM_CHILD = [
    "greeting", "heartbeat", "heartbeat-idle", "hello-progress", "hello-result", "hello-refused", "ping-result",
    "pause-result", "cancel-result", "shutdown-result", "ensure-result", "trim-result", "encode-result", "denoise-accepted",
    "denoise-load", "denoise-progress", "denoise-checkpoint", "denoise-result", "denoise-released",
    "denoise-released-empty", "decode-result", "error", "error-cancelled",
]  # fmt: skip
OPTIONAL = {"field", "details", "call", "calls", "rate", "eta_s"}
NAMED_BY_USERS = {"stats", "sessions", "details", "files"}


def wire(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["wire"]


def mutants(value):
    """Every way to leave one field out, rename it or add one, at any depth that the protocol names."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for mutant in mutants(item):
                yield [*value[:index], mutant, *value[index + 1 :]]
    elif isinstance(value, dict):
        yield {**value, "surprise": 1}
        for key, item in value.items():
            others = {other: its for other, its in value.items() if other != key}
            if key not in OPTIONAL:
                yield others
            yield {**others, f"{key}_x": item}
            if key not in NAMED_BY_USERS:
                for mutant in mutants(item):
                    yield {**value, key: mutant}


def check(frame, request):
    request_id, action, data = protocol.decode(json.dumps(frame).encode())
    if request:
        if action not in protocol.REQUESTS:
            raise protocol.ProtocolError("action", "unknown")
        protocol.check_request(action, data)
    else:
        protocol.check_reply(request_id, action, data)


def test_there_is_one_fixture_for_every_message():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(FROM_NODE + FROM_CHILD)
    assert {wire(name)["action"] for name in FROM_NODE} == set(protocol.REQUESTS) == set(protocol.OUTPUTS)
    kinds = {wire(name)["data"].get("type") for name in FROM_CHILD} - {None}
    assert kinds == set(protocol.REPLIES)


@pytest.mark.parametrize("name", FROM_NODE + FROM_CHILD)
def test_fixture_is_accepted_and_no_field_may_go_come_or_change_its_name(name):
    check(wire(name), name in FROM_NODE)
    for mutant in mutants(wire(name)):
        with pytest.raises(protocol.ProtocolError):
            check(mutant, name in FROM_NODE)


@pytest.mark.parametrize("name", FROM_CHILD)
def test_what_the_child_sends_is_the_wire_form(name):
    frame = wire(name)
    line = protocol.encode(frame["request_id"], frame["action"], frame["data"])
    assert json.loads(line) == frame
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()


@pytest.mark.parametrize(
    "line",
    [b"", b"garbage", b'{"a":' + b"9" * 5000 + b"}", b"[]", b"7", b'{"request_id":"1","action":"x"}', b'{"a":NaN}', b"\xff{}", b"[" * 5000],
)
def test_a_line_that_is_no_frame_is_refused(line):
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(line)


def test_a_frame_over_the_cap_or_with_nan_is_not_sent():
    with pytest.raises(protocol.ProtocolError):
        protocol.encode("1", "worker.ping", {"text": "x" * protocol.LINE_CAP})
    with pytest.raises(ValueError):
        protocol.encode("1", "worker.ping", {"number": float("nan")})


def test_the_error_catalogue_is_the_one_that_typescript_checks():
    shared = json.loads((ROOT / "test" / "fixtures" / "child-errors.json").read_text(encoding="utf-8"))
    assert {code: {"class": error_class, "remedy": remedy} for code, (error_class, remedy) in errors.CATALOGUE.items()} == shared


def test_every_code_that_the_child_raises_is_in_the_catalogue_and_the_other_way_round():
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "python" / "darkroom").glob("*.py")))
    assert set(re.findall(r'DarkroomError\(\s*"([^"]+)"', source)) == set(errors.CATALOGUE)
