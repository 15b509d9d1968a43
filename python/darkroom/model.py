"""Models on the device: which networks are there, which go, and how they come. What a model is made of is its family's
business."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from darkroom import compiling, faults, frames, memory, model_files
from darkroom.errors import DarkroomError
from darkroom.families import Family
from darkroom.profiles import AUTO, PROFILES, Offload, Profile
from darkroom.tools import ModelKey, Tools

if TYPE_CHECKING:
    import torch

    from darkroom.families.parts import Parts
    from darkroom.families.shell import Shell
    from darkroom.weight_files import Figures

# Models whose networks are kept made, without weights, so that these come back quickly.
MAX_KNOWN = 16


class Weights(Protocol):
    """`weight_files.WeightFiles`, as far as models use it."""

    advance: Callable[[int], None]

    def offer(self, files: Iterable[Mapping[str, Any]]) -> None: ...

    def withdraw(self, inodes: Iterable[int]) -> None: ...

    def measure(self) -> Figures: ...

    def wait(self) -> None: ...


Load = Callable[[Mapping[str, Any], "Callable[[Shell], None]", Tools], "Parts"]
"""(reference, what fills each network with its weights, tools) → how the parts of the model are read."""


@dataclass
class Known:
    """A model that was loaded: its networks, with weights or without. `name`: of its family, as a reference has it."""

    name: str
    family: Family
    shells: list[Shell]
    used_at: float

    @property
    def bytes(self) -> int:
        """Of its weights that are on the device; what a family without networks says of itself."""
        return sum(shell.held for shell in self.shells) if self.shells else self.family.bytes

    @property
    def is_resident(self) -> bool:
        return not self.shells or any(shell.is_filled for shell in self.shells)


class Models:
    """Models by id and body hash, in order of use. Their networks go one by one, the one used longest ago first, those
    of the model that computes last.

    `roots`: folders that models may lie in. `families`: what loads them, by the name in a reference. `parts`: how the
    parts of a reference are read. `room`: (bytes that models hold) → bytes that they may take beyond them, None where
    nobody knows.
    """

    def __init__(
        self,
        device: torch.device,
        roots: Iterable[str],
        families: Mapping[str, type[Any]],
        parts: Load,
        weights: Weights,
        room: Callable[[int], int | None],
    ):
        self.weights = weights
        weights.advance = self._read_on
        self._device = device
        self._roots = list(roots)
        self._families = families
        self._parts = parts
        self._room = room
        self._known: dict[ModelKey, Known] = {}
        # The model that computes, its networks, and whose request it is.
        self._key: ModelKey | None = None
        self._own: list[Shell] = []
        # Those of them that compute with one another's weights.
        self._together: list[Shell] = []
        self._tools: Tools | None = None
        self._is_loading = False
        self._profile: Profile = PROFILES[AUTO]
        # Where its networks are now; further off than the profile begins with when they do not fit.
        self.offload = Offload.NONE

    def describe(self, wanted: Collection[ModelKey]) -> list[dict[str, Any]]:
        """The resident models as a heartbeat tells them, the one used longest ago first.

        `wanted`: those that requests use or wait for.
        """
        now = time.monotonic()
        return [
            {
                "id": key[0],
                "family": model.name,
                "bytes": model.bytes,
                "is_idle": key not in wanted,
                "used_s": round(max(0.0, now - model.used_at), 3),
                "parts": [_part(shell) for shell in model.shells if shell.is_filled],
            }
            for key, model in list(self._known.items())
            if model.is_resident
        ]

    def drop(self, at_most: int, keep: Collection[ModelKey]) -> list[str]:
        """Lets go of so many models but those in `keep`, the one used longest ago first; returns their ids."""
        gone = [key for key, model in self._known.items() if key not in keep and model.is_resident][:at_most]
        for key in gone:
            self.forget(key)
        return [model_id for model_id, _ in gone]

    def unload(self, model_id: str, keep: Collection[ModelKey], families: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Takes the weights of every body of that model off the device but those in `keep`; returns {id, bytes} of
        each. Its networks stay made, without weights. `families`: only what one of these loads."""
        found = [
            (key, model)
            for key, model in self._known.items()
            if key[0] == model_id and key not in keep and model.is_resident and (families is None or model.name in families)
        ]
        gone = [{"id": model_id, "bytes": model.bytes} for _, model in found]
        for key, model in found:
            if model.shells:
                _let_go(model.shells)
            else:
                self.forget(key)
        return gone

    def strip(self, key: ModelKey) -> None:
        """Takes the weights of a model off the device, if it is there; its networks stay made."""
        if known := self._known.get(key):
            _let_go(known.shells)

    def forget(self, key: ModelKey) -> None:
        """Lets go of a model, if it is there, with its networks, which are made anew when it comes again."""
        if known := self._known.pop(key, None):
            _let_go(known.shells)

    def may_be_shared(self, reference: Mapping[str, Any]) -> bool:
        """Whether requests of this model may be under way at a time: it is there, no network of it comes and goes, and
        its family gains by it."""
        key = (reference["id"], reference["body_hash"])
        known = self._known.get(key)
        is_there = known is not None and key == self._key and self.offload is Offload.NONE
        return is_there and known.family.shares and all(shell.is_filled for shell in known.shells)

    def networks(self) -> Sequence[Shell]:
        """Those of the model that computes."""
        return self._own

    def clear(self) -> None:
        """Lets go of all of them."""
        for key in list(self._known):
            self.forget(key)

    def relieve(self) -> Iterator[str]:
        """What goes when a request of the model that computes runs out of memory, one thing after another, in words."""
        idle = [shell for shell in self._filled() if shell not in self._own]
        if idle:
            yield f"let go of idle models, {_strip(idle)} bytes"
        if self._key is not None and self.offload < Offload.COMPONENT <= self._profile.most:
            yield self._go_off(Offload.COMPONENT)

    def cut(self) -> Iterator[str]:
        """What goes after that, in words. On a CPU the blocks that wait are where those are that compute."""
        blocks = [shell for shell in self._own if shell.has_blocks]
        if blocks and self.offload < Offload.BLOCKS <= self._profile.most and self._device.type != "cpu":
            yield self._go_off(Offload.BLOCKS)

    def get(self, reference: Mapping[str, Any], tools: Tools) -> tuple[Family, float]:
        """The model, and the seconds that its load took: 0 when it was resident. `reference`: {id, path, body_hash,
        family, parts}.

        Raises `worker.path_refused`, `model.corrupt` and `model.load_failed`; whatever is the device's fault comes as
        it is.
        """
        key = (reference["id"], reference["body_hash"])
        self._tools = tools
        self._own = []
        self._together = []
        if (key, tools.profile) != (self._key, self._profile):
            self._key, self._profile, self.offload = key, tools.profile, tools.profile.first
            known = self._known.get(key)
            own = known.shells if known else []
            if self.offload > Offload.NONE or any(shell.is_in_blocks for shell in own):
                _strip(own)
        return self._take(key, reference, tools)

    def beside(self, reference: Mapping[str, Any], tools: Tools) -> Any:
        """What computes beside the model that came last, such as a ControlNet, and goes with its networks. Raises as
        `get`."""
        return self._take((reference["id"], reference["body_hash"]), reference, tools)[0]

    def keep_together(self, *networks: torch.nn.Module) -> None:
        """These of the model that computes use one another's weights, until the next `get`: where one is used all are
        there, however the model is offloaded."""
        self._together += [shell for shell in self._own if shell.network in networks and shell not in self._together]

    def _with(self, shell: Shell) -> list[Shell]:
        return self._together if shell in self._together else [shell]

    def _take(self, key: ModelKey, reference: Mapping[str, Any], tools: Tools) -> tuple[Family, float]:
        known = self._known.pop(key, None)
        self._own += known.shells if known else []
        started = time.monotonic()
        is_there = known is not None and (self.offload > Offload.NONE or all(shell.is_filled for shell in known.shells))
        if not is_there:
            tools.begin_load()
            self._is_loading = True
            try:
                known = self._load(known, reference, tools)
            finally:
                self._is_loading = False
        self._known[key] = known
        known.used_at = time.monotonic()
        while len(self._known) > MAX_KNOWN:
            self.forget(next(iter(self._known)))
        return known.family, 0.0 if is_there else known.used_at - started

    def _load(self, known: Known | None, reference: Mapping[str, Any], tools: Tools) -> Known:
        """All networks of a model, made where they are not `known`, with their weights."""
        path = model_files.inside(reference["path"], self._roots)
        family = self._families[reference["family"]]
        try:
            model_files.check(path, reference.get("parts") or (), family, self._roots)
            if known is None:
                shells: list[Shell] = []
                made = family.load(self._parts({**reference, "path": path}, partial(self._add, shells), tools), self._device)
                known = Known(reference["family"], made, shells, time.monotonic())
            for shell in known.shells if self.offload == Offload.NONE else []:
                if not shell.is_filled:
                    # As its files have it: what adapters made of it belonged to another request.
                    shell.unpatch()
                    self._fill(shell)
            self.weights.wait()
            return known
        except BaseException as error:
            # Half of a model is none.
            _strip(self._own)
            self._own = []
            # Whatever a broken folder makes the libraries throw.
            if isinstance(error, DarkroomError) or not isinstance(error, Exception):
                raise
            if faults.is_out_of_memory(error) or faults.is_device_lost(error):
                raise
            raise DarkroomError("model.load_failed", f"{path}: {type(error).__name__}: {error}", field="model.path") from error

    def _add(self, shells: list[Shell], shell: Shell) -> None:
        """A network of the model that is being loaded."""
        shells.append(shell)
        self._own.append(shell)
        shell.before_use(self._use)
        self._fill(shell)

    def _use(self, shell: Shell) -> None:
        # Where the last finds no room the others go once more: then all come back block by block.
        while missing := [each for each in self._with(shell) if not each.is_filled]:
            self._fill(missing[0])

    def _fill(self, shell: Shell) -> None:
        """Brings its weights, after others have made room for them."""
        for other in sorted((each for each in self._filled() if each not in self._own), key=lambda each: each.used_at):
            if self._fits(shell):
                break
            other.strip()
        others = [each for each in self._own if each not in self._with(shell)]
        if self.offload > Offload.NONE:
            _strip(others)
        elif not self._fits(shell) and self._profile.most > Offload.NONE and any(each.is_filled for each in others):
            self._note(self._go_off(Offload.COMPONENT, others))
        if not self._fits(shell):
            if self._profile.most == Offload.NONE:
                name = self._key and self._key[0]
                problem = f"{shell.part} of {name} takes {shell.bytes} bytes, which are not free: ask for `balanced` or `auto`"
                raise DarkroomError("memory.exhausted", problem, field="input.memoryProfile")
            for said in self.cut():
                self._note(said)
        shell.fill(in_blocks=self.offload == Offload.BLOCKS)

    def _fits(self, shell: Shell) -> bool:
        room = self._room(sum(each.held for each in self._filled()))
        return room is None or room >= shell.bytes

    def _go_off(self, offload: Offload, shells: Iterable[Shell] | None = None) -> str:
        self.offload = offload
        freed = _strip(self._own if shells is None else shells)
        how = "block by block" if offload == Offload.BLOCKS else "one at a time"
        return f"offloaded {self._key and self._key[0]}, {freed} bytes: its networks come when they are used, {how}"

    def _read_on(self, count: int) -> None:
        """So many bytes more of weights were read. What comes while a picture is drawn is none of a load's progress."""
        if self._tools is not None and self._is_loading:
            self._tools.loaded(count)
        elif self._tools is not None:
            self._tools.advance()

    def _note(self, text: str) -> None:
        if self._tools is not None:
            self._tools.note(f"memory: {text}")

    def _filled(self) -> list[Shell]:
        every = {id(shell): shell for model in self._known.values() for shell in model.shells}
        every |= {id(shell): shell for shell in self._own}
        return [shell for shell in every.values() if shell.is_filled]


def _part(shell: Shell) -> dict[str, Any]:
    """A network that is on the device, as a heartbeat tells it."""
    patched_by = [{"id": name, "weight": weight} for name, weight in shell.patched_by]
    return {"name": shell.part, "bytes": shell.held, "patched_by": patched_by}


def _strip(shells: Iterable[Shell]) -> int:
    """Takes the weights that are there off the device; returns how many bytes."""
    freed = 0
    for shell in shells:
        if shell.is_filled:
            freed += shell.held
            shell.strip()
    return freed


def _let_go(shells: Iterable[Shell]) -> None:
    """Of their weights, and of what was compiled of them."""
    for shell in shells:
        compiling.drop(shell.network)
    _strip(shells)


def ensure(tools: Tools) -> dict[str, Any]:
    """model.ensure: makes a model resident ahead of the work. `files`: what the worker's cache holds of it. `bytes` of
    its weights; of a load the `seconds`, and how many bytes were read from RAM and from disk.

    Raises as `Models.get`.
    """
    models, reference = tools.runtime.models, tools.data["model"]
    models.weights.offer(tools.data["files"])
    models.weights.measure()
    model, seconds = models.get(reference, tools)
    read = models.weights.measure()
    output = {"id": reference["id"], "resident": seconds == 0, "bytes": model.bytes, "seconds": seconds}
    return frames.result({**output, "ram_bytes": read.ram, "disk_bytes": read.disk, "registered_bytes": read.registered})


def drop(tools: Tools) -> dict[str, Any]:
    """model.drop: lets go of a model that no request in the child uses or waits for; `models` says what went, and
    `freed_bytes` what the device has again: None where there is no device but the CPU."""
    runtime = tools.runtime
    before = memory.reserved_bytes(runtime.device)
    gone = runtime.models.unload(tools.data["id"], runtime.wanted(), tools.data["families"])
    memory.empty_caches(runtime.device)
    after = memory.reserved_bytes(runtime.device)
    freed = None if before is None or after is None else max(0, before - after)
    return frames.result({"models": gone, "freed_bytes": freed})


def optimize(tools: Tools) -> dict[str, Any]:
    """model.optimize: see `measure.optimize`."""
    from darkroom import measure

    return measure.optimize(tools)


def benchmark(tools: Tools) -> dict[str, Any]:
    """model.benchmark: see `measure.benchmark`."""
    from darkroom import measure

    return measure.benchmark(tools)


def load(tools: Tools) -> dict[str, Any]:
    """model.load: as `ensure`, for a session that asks for it; `bytes` of its weights on the device. Raises as
    `Models.get`."""
    model, _ = tools.runtime.models.get(tools.input["model"], tools)
    return frames.result({"id": tools.input["model"]["id"], "bytes": model.bytes})


def uncache(tools: Tools) -> dict[str, Any]:
    """model.uncache: the worker's cache lets go of these files, which this process maps no longer."""
    tools.runtime.models.weights.withdraw(tools.data["inodes"])
    return frames.result()
