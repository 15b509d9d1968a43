"""Many requests of all kinds in one child: its memory stays, and each draws what it draws in another order."""

import random

import pytest
from micro_flow import SCHEDULERS
from test_adapters import tiny
from test_flow import REQUESTS

from darkroom import samplers
from darkroom.profiles import PROFILES

COUNT = 50
FLAT = 1.02
# A leak does not stop before.
MOST_ROUNDS = 6
# In such a block torch takes the memory of a GPU, and these models take few.
BLOCK = 2 << 20
SIZES = [(64, 48), (96, 64), (128, 128), (64, 128)]
STYLES = [[], [], [("pastel", 0.8)], [("outline", 0.5), ("pastel", 0.8)], [("outline", 1.0)]]


def resident_bytes(child):
    with open(f"/proc/{child.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024


def is_flat(before, after):
    return all(now <= FLAT * then + BLOCK for then, now in zip(before, after, strict=True))


def requests(of_family):
    chance = random.Random(20261130)
    for seed in range(COUNT):
        family = chance.choice(["tiny", "tiny", "sd1", "sdxl", *SCHEDULERS])
        width, height = chance.choice(SIZES)
        asked = {
            "width": width,
            "height": height,
            "steps": chance.randint(2, 5),
            "seed": seed,
            "memory_profile": chance.choice(list(PROFILES)),
        }
        if family in SCHEDULERS:
            asked = {**REQUESTS[family], **asked, "sampler": chance.choice(["Euler", "Heun", "LCM"])}
        else:
            asked["sampler"] = chance.choice(list(samplers.SAMPLERS))
        if family == "tiny":
            styles = chance.choice(STYLES)
            yield {**asked, **({"adapters": [tiny(*style) for style in styles]} if styles else {})}
        else:
            yield {**asked, "model": of_family(family)}


@pytest.mark.long
def test_fifty_requests_of_all_kinds_leave_the_memory_as_it_was_and_none_of_them_matters_to_another(spawn, micro_folder, of_family):
    wanted = list(requests(of_family))
    child = spawn(models=[micro_folder])
    child.ready()

    def drawn(request):
        denoised = child.run("denoise", **request)
        if denoised["type"] == "error":
            # What a family does not take is refused, and the same each time.
            return denoised["code"], denoised["message"]
        decoded = child.run("decode", files=denoised["files"], **request)
        return denoised["files"]["latents"]["sha256"], decoded["files"]["pixels"]["sha256"]

    first = [drawn(request) for request in wanted]
    assert sum(len(each[0]) == 64 for each in first) > 0.8 * COUNT, first
    order = list(range(COUNT))
    random.Random(7).shuffle(order)

    def lowest():
        """Of a round, bytes: RAM, and what is taken of the device."""
        taken = []
        for place in order:
            assert drawn(wanted[place]) == first[place], wanted[place]
            taken.append((resident_bytes(child), child.vitals()["device_bytes"] or 0))
        return [min(each) for each in zip(*taken, strict=True)]

    # What is read and freed comes and goes by tens of megabytes: what stays is the lowest of a round. The C library
    # takes some more now and then; what leaks rises with every round.
    rounds = [lowest(), lowest()]
    while len(rounds) < MOST_ROUNDS and not is_flat(*rounds[-2:]):
        rounds.append(lowest())
    print(rounds)
    assert is_flat(*rounds[-2:]), rounds
