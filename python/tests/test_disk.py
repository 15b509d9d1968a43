"""A disk without room: said as such, nothing left behind, and no step fails for a checkpoint that could not be kept."""

import errno
from pathlib import Path

import pytest

from darkroom import faults

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def on_a_full_disk(child, verb, names, **request):
    """The request's terminal frame when these files of it lie on a full disk, and its folder."""
    data = child.data(verb, **request)
    folder = Path(data["dir"])
    for name in names:
        (folder / f"{name}.part").symlink_to(FULL)
    return child.until(child.send(f"inference.{verb}", data)), folder


def test_a_result_without_room_is_disk_full_and_leaves_nothing(shared):
    answer, folder = on_a_full_disk(shared, "denoise", ["latents.safetensors"])
    assert (answer["type"], answer["code"], answer["class"]) == ("error", "disk.full", "resource")
    assert "No space left on device" in answer["message"]
    assert "latents.safetensors.part" not in {file.name for file in folder.iterdir()}
    assert shared.run("denoise")["type"] == "result"


def test_a_checkpoint_without_room_costs_the_step_nothing(shared):
    undisturbed = shared.run("denoise")
    answer, folder = on_a_full_disk(shared, "denoise", ["checkpoint-2.safetensors"])
    assert answer["files"]["latents"]["sha256"] == undisturbed["files"]["latents"]["sha256"]
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_used_up_quota_is_a_full_disk_too(code):
    assert faults.is_disk_full(OSError(code, "no room"))
    assert not faults.is_disk_full(OSError(errno.EACCES, "not yours"))
    assert not faults.is_disk_full(RuntimeError("No space left on device"))
