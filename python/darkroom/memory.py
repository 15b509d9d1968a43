"""What the child holds of its device, and how it lets go of what can be had again."""

import gc

from darkroom import protocol


def trim(tools):
    """memory.trim: empties the caches of torch's allocator, and lets go of up to `idle_models` models, the one used longest ago first.

    Models that a request in the child uses or waits for stay. `freed_bytes` is what went back to the device; None where there is no
    device but the CPU, whose memory torch does not pool.
    """
    place = tools.place
    before = reserved_bytes(place.device)
    gone = place.models.drop(tools.data["idle_models"], keep=place.wanted())
    empty_caches(place.device)
    after = reserved_bytes(place.device)
    freed = None if before is None else max(0, before - after)
    return protocol.result({"freed_bytes": freed, "models": gone})


def empty_caches(device):
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def allocated_bytes(device):
    """In tensors. None where there is no device but the CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_allocated(device)


def reserved_bytes(device):
    """Taken from the device: tensors, and what the allocator keeps. None where there is no device but the CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.memory_reserved(device)
