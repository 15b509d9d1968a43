"""The facts that decide bits: what is shared by two devices of one class, and nothing else."""

import json

from conftest import ROOT

from darkroom import exactness

READY = json.loads((ROOT / "test" / "fixtures" / "protocol" / "hello-result.json").read_text(encoding="utf-8"))["wire"]["data"]["output"]
DESCRIBED = {name: READY[name] for name in ("build", "hardware", "settings")}


def test_the_facts_are_those_that_the_node_hashes():
    """test/workers/exactness.unit.test.ts makes its key of the same fixture."""
    assert exactness.facts(**DESCRIBED) == READY["facts"]


def test_a_child_says_the_facts_of_what_it_described(fresh):
    ready = fresh.of(fresh.hello, "result")[0]["output"]
    assert ready["facts"] == exactness.facts(**{name: ready[name] for name in DESCRIBED})


def test_two_gpus_of_one_kind_have_equal_facts_and_another_driver_has_others():
    gpu = {**READY["hardware"], "kind": "cuda", "name": "A100", "capability": "8.0", "driver": "570.1", "uuid": "a", "index": 0}

    def facts(**changes):
        return exactness.facts(**{**DESCRIBED, "hardware": {**gpu, **changes}})

    assert facts(uuid="b", index=1, total_bytes=1, vector="none") == facts()
    assert facts(driver="580.2") != facts()
    assert facts(name="H100") != facts()
