"""The training step's machinery: float32 masters, moving averages, CUDA graphs and loops that keep to a time.

Networks this narrow are bound by kernel launches, not arithmetic, so a whole step (data, forward, backward,
optimiser) is captured once in a CUDA graph and replayed. On a CPU the same functions run plainly, which is
how the smoke test works.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from .run import Run

Step = Callable[[], None]


class MasterWeights:
    """AdamW on float32 copies of modules that compute in bfloat16, with an exponential moving average of the
    copies.

    The average is what ships: at a constant rate of learning it is worth a long decay. Rate and decay live in
    tensors so that a captured step sees them change.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        run: Run,
        rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        undecayed: Sequence[str] = (),
        clip: float = 1.0,
        average: float = 0.9995,
    ) -> None:
        """Names become "<key of modules>.<parameter>". `undecayed` lists keys without weight decay; vectors
        never have it.
        """
        self.rate, self.clip, self.average = rate, clip, average
        named = [
            (f"{key}.{name}", parameter)
            for key, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        self.names = [name for name, _ in named]
        self.working = [parameter for _, parameter in named]
        self.masters = [parameter.detach().float().clone().requires_grad_(True) for parameter in self.working]
        self.averages = [master.detach().clone() for master in self.masters]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        decayed = [
            master
            for name, master in zip(self.names, self.masters, strict=True)
            if master.ndim > 1 and name.split(".", 1)[0] not in undecayed
        ]
        chosen = {id(master) for master in decayed}
        plain = [master for master in self.masters if id(master) not in chosen]
        self._rate = torch.tensor(rate / 20, device=run.device)
        self._weight = torch.tensor(1.0, device=run.device)
        self._cuda = run.cuda
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self._rate if run.cuda else rate,
            betas=betas,
            fused=run.cuda,
            capturable=run.cuda,
        )

    def forget_gradients(self) -> None:
        """Drop the working gradients; a step's first act."""
        for parameter in self.working:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Clip, update the masters, copy them to the working weights and move the average."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.working]
        torch._foreach_copy_([master.grad for master in self.masters], gradients)
        nn.utils.clip_grad_norm_(self.masters, self.clip, foreach=True)
        self.optimiser.step()
        masters = [master.detach() for master in self.masters]
        torch._foreach_copy_([parameter.detach() for parameter in self.working], masters)
        moved = torch._foreach_sub(masters, self.averages)
        torch._foreach_mul_(moved, self._weight)
        torch._foreach_add_(self.averages, moved)

    def set_rate(self, factor: float, step: int) -> None:
        """Set the rate of learning to `factor` of its peak, and the average's weight, which starts as a plain
        mean.
        """
        self._rate.fill_(self.rate * factor)
        self._weight.fill_(max(1 - self.average, 1 / (step + 2)))
        if not self._cuda:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * factor

    def averaged(self) -> dict[str, torch.Tensor]:
        """The averaged weights, float32, by full name."""
        return {name: tensor.detach().clone() for name, tensor in zip(self.names, self.averages, strict=True)}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Start masters, average and working weights from saved averages. The optimiser's moments start
        anew.
        """
        for name, master, average, working in zip(self.names, self.masters, self.averages, self.working, strict=True):
            for target in (master, average, working):
                target.copy_(weights[name])


def part(weights: Mapping[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    """The weights of one module, without its key."""
    return {name[len(key) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(key + ".")}


def rounded(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as they ship: rounded to half precision, kept as float32."""
    return {name: tensor.half().float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def capture(step: Step, run: Run, name: str, warm: int = 3) -> Step:
    """Capture a step in a CUDA graph; on a CPU, or where capturing fails, the plain step."""
    if not run.cuda:
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        run.log(f"{name}: not captured, runs eagerly: {str(error)[:300]}")
        return step

    # The graph knows tensors by address alone. What the step closes over must live as long as the graph, or
    # its memory is handed out again and the replay reads something else.
    def replay(_alive: Step = step) -> None:
        graph.replay()

    return replay


class Losses:
    """Running sums of named losses on the device, so that a step never waits for the host."""

    def __init__(self, names: Sequence[str], run: Run) -> None:
        self.names = names
        self._sums = torch.zeros(len(names) + 1, device=run.device)

    @torch.no_grad()
    def add(self, *values: torch.Tensor) -> None:
        self._sums.add_(torch.stack([*(value.detach().float() for value in values), torch.ones_like(self._sums[0])]))

    def take(self) -> dict[str, float]:
        """Means since the last call. Raises RuntimeError if one is negative or no number: the training is
        broken.
        """
        *sums, count = self._sums.tolist()
        self._sums.zero_()
        means = {name: round(total / max(1.0, count), 5) for name, total in zip(self.names, sums, strict=True)}
        if not all(0 <= mean < math.inf for mean in means.values()):
            raise RuntimeError(f"impossible losses: {means}")
        return means


@dataclass
class Schedule:
    """Linear warm-up, then a cosine over elapsed time down to `final` of the peak rate.

    `elapsed` is the time earlier runs have spent; `limit` ends this run early, to be resumed.
    """

    seconds: float
    warmup: int
    final: float
    elapsed: float = 0.0
    limit: float = math.inf
    most_steps: int | None = None

    def factor(self, steps: int, elapsed: float) -> float:
        progress = min(1.0, max(elapsed / self.seconds, steps / self.most_steps if self.most_steps else 0.0))
        cosine = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))
        return min(1.0, (steps + 1) / self.warmup) * cosine


@dataclass
class Outcome:
    """What a loop did. `finished` is false if it stopped at its run's limit."""

    steps: int
    seconds: float
    finished: bool
    losses: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "steps_per_second": round(self.steps / max(self.seconds, 1e-9), 2),
            "losses": self.losses,
        }


def loop(
    name: str,
    steps: list[Step],
    weights: MasterWeights,
    schedule: Schedule,
    losses: Losses,
    run: Run,
    pause: Callable[[int, float], list[Step] | None] | None = None,
) -> Outcome:
    """Run the cycle of `steps` until the schedule's time, step count or limit is reached.

    `pause(steps done, seconds elapsed)` is called now and then and may return a new cycle.
    """
    begun = reported = time.monotonic()
    count = last = 0
    history: list[tuple[int, dict[str, float]]] = []
    burst = 20 if run.cuda else 1
    while True:
        spent = time.monotonic() - begun
        elapsed = schedule.elapsed + spent
        finished = elapsed >= schedule.seconds or (schedule.most_steps is not None and count >= schedule.most_steps)
        if finished or spent >= schedule.limit:
            break
        weights.set_rate(schedule.factor(count, elapsed), count)
        for _ in range(burst):
            steps[count % len(steps)]()
            count += 1
        run.synchronize()
        now = time.monotonic()
        if now - reported > 15:
            history.append((count, losses.take()))
            run.log(f"{name}: step {count}, {(count - last) / (now - reported):.1f} steps/s, {history[-1][1]}")
            reported, last = now, count
        if pause is not None:
            steps = pause(count, schedule.elapsed + now - begun) or steps
    run.synchronize()
    history.append((count, losses.take()))
    outcome = Outcome(count, time.monotonic() - begun, finished, history)
    run.log(f"{name}: {count} steps in {outcome.seconds:.1f} s, {outcome.steps / outcome.seconds:.1f} steps/s, {history[-1][1]}")
    return outcome
