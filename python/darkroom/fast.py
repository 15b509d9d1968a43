"""The classes of drawing: `exact`, whose bytes are promised, and `fast`, whose are not.

| way | where | what it changes |
| --- | --- | --- |
| `compile` | repeated blocks of the network, with a compiler on the worker's machine | fused kernels round otherwise |
| `step-cache` | transformers, at a threshold of the request's | blocks that would hardly change anything are left out |
| `co-batch` | UNets, with two slots or more | calls of several pictures are rows of one forward |

A picture of the class `fast` says which ways it used, and why not the others; it belongs to another exactness key, and
neither goes on from what the other class has left: texts, latents, checkpoints.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from darkroom import compiling, exactness, graphs
from darkroom.profiles import Offload
from darkroom.together import Member, Together

if TYPE_CHECKING:
    import torch

    from darkroom.drawing import Predicts
    from darkroom.families import Family
    from darkroom.step_cache import StepCache
    from darkroom.together import Model
    from darkroom.tools import Tools

EXACT, FAST = "exact", "fast"
COMPILE, STEP_CACHE, CO_BATCH = "compile", "step-cache", "co-batch"
# Where a family says no classes of its own: those that its authors compile.
OF_DIFFUSERS = "_repeated_blocks"


@dataclass(frozen=True)
class Ways:
    """What a family's network has for the class `fast`."""

    part: str
    """Its network that draws, by the name of its folder."""
    sequence: tuple[str, ...] = ()
    """Its lists of blocks, through which a forward passes one after the other; none: it has no step cache."""
    regions: tuple[str, ...] = ()
    """Classes of the blocks that are compiled; none: those that diffusers names."""
    varies: bool = False
    """Whether shapes differ from prompt to prompt."""


def facts_of(facts: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Of a request's picture and all that leads to it: those of the child, and the class where it is not `exact`."""
    if request.get("class", EXACT) == EXACT:
        return dict(facts)
    return {**facts, "settings": {**facts.get("settings", {}), "class": request["class"]}}


@dataclass
class Used:
    """What one picture uses, and how often."""

    build: str
    compiled: compiling.Compiled | None = None
    cache: StepCache | None = None
    member: Member | None = None
    """Among the pictures that are drawn together; None where the family knows none of it."""
    not_used: dict[str, str] = field(default_factory=dict)
    """Way → why not."""
    began: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    def begin_call(self) -> None:
        """Before each call of the network's family."""
        if self.cache is not None:
            self.cache.begin_call()

    def model(self, family: Family) -> Predicts:
        """What computes the calls of the picture: the family itself, or that together with other pictures."""
        return family if self.member is None else self.member

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds on the device."""
        return [] if self.cache is None else self.cache.tensors()

    def stats(self) -> dict[str, Any]:
        """For the receipt: {used, not_used, compile, step_cache, co_batch, rows}."""
        used: dict[str, dict[str, Any]] = {}
        not_used = dict(self.not_used)
        if self.compiled is not None:
            functions, anew = (now - then for now, then in zip(compiling.counted(), self.began, strict=True))
            blocks = [{"kind": kind, "count": count} for kind, count in self.compiled.counts.items()]
            counted = {"functions": functions, "from_cache": max(0, functions - anew)}
            said = {"blocks": blocks, "build": self.build, **counted, "seconds": round(self.compiled.seconds - self.seconds, 3)}
            if self.compiled.failure is None:
                used[COMPILE] = {"compile": said}
            else:
                not_used[COMPILE] = f"compiling failed, and it went on eagerly: {self.compiled.failure}"
        if self.cache is not None:
            numbers = {"threshold": self.cache.threshold, "computed": self.cache.computed, "reused": self.cache.reused}
            used[STEP_CACHE] = {"step_cache": numbers}
        if self.member is not None and self.member.calls > 0:
            used[CO_BATCH] = {"co_batch": {"calls": self.member.calls}}
        elif self.member is not None:
            not_used[CO_BATCH] = "no other picture of its model, size and class was drawn beside it"
        else:
            not_used[CO_BATCH] = "models of this family are drawn one at a time"
        said_of = {name: value for each in used.values() for name, value in each.items()}
        reasons = [{"way": way, "why": why} for way, why in not_used.items()]
        return {"fast": {"used": list(used), "not_used": reasons, **said_of, "rows": self.member.most if self.member else 1}}


@contextlib.contextmanager
def drawing(model: Family, tools: Tools) -> Generator[Used | None]:
    """Within it the model computes as the request's class says; None of the class `exact`. What is not used is noted
    in the session's history when it fails only now."""
    request = tools.input
    if request.get("class", EXACT) == EXACT:
        yield None
        return
    build = tools.runtime.facts["build"]
    used = Used(f"torch {build['torch']}, diffusers {build['diffusers']}")
    ways = model.fast
    [network] = [shell.network for shell in tools.runtime.models.networks() if shell.part == ways.part]
    under_way = _under_way.setdefault(network, UnderWay())
    under_way.pictures.append(tools)
    try:
        compiled = _compiled(used, ways, network, tools)
        if len(under_way.pictures) == 1:
            under_way.stack.enter_context(exactness.unbound())
            under_way.stack.enter_context(graphs.another(network))
            if compiled is not None:
                under_way.stack.enter_context(compiled.within(_shape(tools.input), under_way.tell))
            if model.shares:
                under_way.together = Together(cast("Model", model), tools.runtime.turn)
        with contextlib.ExitStack() as stack:
            _cache(used, ways, network, request, stack)
            if under_way.together is not None:
                used.member = stack.enter_context(under_way.together.joining())
            yield used
    finally:
        under_way.pictures.remove(tools)
        if not under_way.pictures:
            del _under_way[network]
            under_way.stack.close()
    if used.compiled is not None and used.compiled.failure is not None:
        tools.note(f"the picture was not drawn with compiled blocks: {used.compiled.failure}")


@dataclass
class UnderWay:
    """Pictures of the class `fast` that one network draws: all of one shape, for `sharing` lets no other in."""

    pictures: list[Tools] = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What the network computes with, until the last of them has ended."""
    together: Together | None = None

    def tell(self) -> None:
        """Something is being compiled, for which all wait."""
        for tools in list(self.pictures):
            tools.progress("compile")


_under_way: weakref.WeakKeyDictionary[torch.nn.Module, UnderWay] = weakref.WeakKeyDictionary()


def _shape(request: Mapping[str, Any]) -> tuple[Any, ...]:
    return (request["width"], request["height"], request["guidance"] > 1, len(request.get("references", ())))


def _compiled(used: Used, ways: Ways, network: torch.nn.Module, tools: Tools) -> compiling.Compiled | None:
    """What its blocks are to compute with, None for those of the network."""
    runtime = tools.runtime
    why = compiling.obstacle(runtime.device.type)
    if why is None and runtime.models.offload is Offload.BLOCKS:
        why = "the network comes block by block, in other places each time: its memory profile says so, or memory has run out"
    if why is not None:
        used.not_used[COMPILE] = why
        return None
    compiled = compiling.of(network, ways.regions or getattr(network, OF_DIFFUSERS), ways.varies)
    used.compiled = compiled
    if compiled.failure is not None:
        return None
    used.began, used.seconds = compiling.counted(), compiled.seconds
    return compiled


def _cache(used: Used, ways: Ways, network: torch.nn.Module, request: Mapping[str, Any], stack: contextlib.ExitStack) -> None:
    if not ways.sequence:
        used.not_used[STEP_CACHE] = "models of this family have none"
        return
    from darkroom.step_cache import StepCache

    blocks = [block for name in ways.sequence for block in getattr(network, name)]
    threshold = request.get("step_cache", 0.0)
    if threshold == 0:
        used.not_used[STEP_CACHE] = "the request turns it off: stepCache is 0"
    elif "control" in request:
        used.not_used[STEP_CACHE] = "a ControlNet adds to what the blocks give, which must run then"
    elif len(blocks) < 2:
        used.not_used[STEP_CACHE] = "the network has one block alone"
    else:
        used.cache = StepCache(blocks, threshold)
        # Which blocks run follows from what the first one made: no recording knows.
        stack.enter_context(graphs.eagerly(network))
        stack.enter_context(used.cache.within())
