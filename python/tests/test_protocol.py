"""The frames as both sides read them: by the schema that the node's declarations generate, over the fixtures that its
tests read too."""

import json
import re

import pytest
from conftest import ROOT

from darkroom import families, frames, schema
from darkroom.errors import DarkroomError

FIXTURES = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "test" / "fixtures" / "protocol").glob("*.json"))
}
FROM_CHILD = [name for name, fixture in FIXTURES.items() if fixture["from"] == "child"]
# Fields that a frame may lack.
OPTIONAL = {
    "progress": {"call", "calls", "rate", "eta_s"},
    "error": {"field", "details"},
    "stats": set(schema.DOCUMENT["results"]["worker.ping"]["properties"]["stats"]["properties"]),
    "files": {"conditioning", "control0", "latents", "picture", "picture0", "reference0"},
    "input": {"control", "memory_profile", "references"},
}
# Their keys are names that others chose.
OPAQUE = {"sessions", "details", "facts"}
# Objects of any kind.
ANYTHING = {"details", "facts"}


def mutants(value, optional=frozenset()):
    """Every way to leave one field out, rename it, add one or give it another type, at any depth that the protocol
    names."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for mutant in mutants(item):
                yield [*value[:index], mutant, *value[index + 1 :]]
    elif isinstance(value, dict):
        optional = optional | OPTIONAL.get(value.get("type"), set())
        yield {**value, "surprise": 1}
        for key, item in value.items():
            others = {other: its for other, its in value.items() if other != key}
            if key not in optional:
                yield others
            yield {**others, f"{key}_x": item}
            if key not in ANYTHING:
                yield {**value, key: {"of": "another type"}}
            yield {**value, key: [[]]}
            if key not in OPAQUE:
                for mutant in mutants(item, OPTIONAL.get(key, frozenset())):
                    yield {**value, key: mutant}


def check(frame, sender):
    request_id, action, data = frames.decode(json.dumps(frame).encode())
    if sender == "child":
        frames.check_reply(request_id, action, data)
    elif action in frames.REQUESTS:
        frames.check_request(action, data)
    else:
        raise frames.ProtocolError("action", "unknown")


def test_there_is_a_fixture_for_every_message():
    sent = {(fixture["from"], fixture["wire"]["action"], fixture["wire"]["data"].get("type")) for fixture in FIXTURES.values()}
    assert {action for sender, action, _ in sent if sender == "node"} == set(frames.REQUESTS)
    assert {action for sender, action, kind in sent if kind == "result"} == set(schema.DOCUMENT["results"])
    assert {kind for sender, _, kind in sent if sender == "child"} == {None, "result", *schema.DOCUMENT["replies"]}
    assert {action for sender, action, kind in sent if sender == "child" and kind is None} == set(schema.DOCUMENT["unasked"])


@pytest.mark.parametrize("name", FIXTURES)
def test_fixture_is_accepted_and_no_field_may_go_come_or_change_its_name_or_type(name):
    fixture = FIXTURES[name]
    check(fixture["wire"], fixture["from"])
    wrong = list(mutants(fixture["wire"]))
    assert len(wrong) > 5
    for mutant in wrong:
        with pytest.raises(frames.ProtocolError):
            check(mutant, fixture["from"])
            pytest.fail(f"accepted: {json.dumps(mutant)}")


@pytest.mark.parametrize("name", FROM_CHILD)
def test_what_the_child_sends_is_the_wire_form(name):
    frame = FIXTURES[name]["wire"]
    line = frames.encode(frame["request_id"], frame["action"], frame["data"])
    assert json.loads(line) == frame
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()


@pytest.mark.parametrize(
    "line",
    [b"", b"garbage", b'{"a":' + b"9" * 5000 + b"}", b"[]", b"7", b'{"request_id":"1","action":"x"}', b'{"a":NaN}', b"\xff{}", b"[" * 5000],
)
def test_a_line_that_is_no_frame_is_refused(line):
    with pytest.raises(frames.ProtocolError):
        frames.decode(line)


def test_a_frame_over_the_cap_or_with_nan_is_not_sent():
    with pytest.raises(frames.ProtocolError):
        frames.encode("1", "worker.ping", {"text": "x" * schema.LINE_CAP})
    with pytest.raises(ValueError):
        frames.encode("1", "worker.ping", {"number": float("nan")})


def test_every_code_that_the_child_raises_is_in_the_catalogue():
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "python" / "darkroom").rglob("*.py")))
    raised = set(re.findall(r'DarkroomError\(\s*"([^"]+)"', source))
    assert "model.corrupt" in raised
    assert raised <= set(schema.ERRORS)
    error = DarkroomError("session.cancelled", "it was").to_wire()
    assert (error["class"], error["remedy"]) == ("cancelled", schema.ERRORS["session.cancelled"]["remedy"])


def test_the_families_are_those_that_the_node_recognises():
    assert list(families.families()) == schema.DOCUMENT["families"]
