"""Text to conditioning, noise to latents, latents to pixels: one image per forward pair, so that an image is
the same alone or among others.
"""

import time
from collections import deque

from darkroom import checkpoint, protocol
from darkroom.errors import DarkroomError, Paused
from darkroom.samplers import canonical_name, make_scheduler, step_options

# Calls that rate and time left are reckoned from.
RECENT = 8


def encode(tools):
    """inference.encode: file `conditioning`, safetensors with `positive` and `negative`, [1, tokens, width]
    fp32.
    """
    import torch

    model, load_s = tools.place.models.get(tools.input["model"], tools)
    started = time.monotonic()
    tools.check_stop(can_pause=True)
    tools.progress("run")
    with torch.inference_mode():
        tensors, cut = _encode(model, tools)
    content = _save_tensors(tensors, {"belongs": _conditioning_identity(tools)})
    file = tools.write("conditioning.safetensors", content)
    stats = {"seconds": time.monotonic() - started, "load_s": load_s, "tokens_cut": cut}
    return protocol.result(files={"conditioning": file}, stats=stats)


def denoise(tools):
    """inference.denoise: file `latents`, safetensors with `latents`, [1, channels, height / scale, width /
    scale] fp32.
    """
    import torch

    with torch.inference_mode():
        return _denoise(tools)


def decode(tools):
    """inference.decode: file `pixels`, RGB8 row by row.

    Raises `artifact.missing` when the latents are missing or broken.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    content, problem = tools.read("latents")
    try:
        latents = load(content)["latents"] if content is not None else None
    except (SafetensorError, ValueError, KeyError) as error:
        latents, problem = None, str(error)
    if latents is None:
        raise DarkroomError(
            "artifact.missing", f"the latents cannot be used: {problem}", field="files.latents"
        )
    width, height = tools.input["width"], tools.input["height"]
    model, load_s = tools.place.models.get(tools.input["model"], tools)
    expected = (1, model.vae.config.latent_channels, height // model.scale, width // model.scale)
    if tuple(latents.shape) != expected:
        raise DarkroomError(
            "artifact.missing",
            f"the latents have shape {list(latents.shape)}, not {list(expected)}",
            field="files.latents",
        )
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    with torch.inference_mode():
        tools.hold(latents.nbytes + width * height * 3 * 4)
        config = model.vae.config
        scaled = latents.to(tools.place.device, torch.float32) / config.scaling_factor + (
            config.shift_factor or 0.0
        )
        image = model.vae.decode(scaled, return_dict=False)[0]
        rgb = (image[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
        content = rgb.contiguous().cpu().numpy().tobytes()
    file = tools.write("pixels.rgb", content)
    stats = {"seconds": time.monotonic() - started, "load_s": load_s}
    return protocol.result({"width": width, "height": height}, {"pixels": file}, stats)


class Denoiser:
    """The network behind one function.

    `forward` is what another way of running it (a CUDA graph, ONNX) has to offer.
    """

    def __init__(self, model):
        self._unet = model.unet
        self._dtype = model.dtype

    def forward(self, latents, t, conditioning):
        """Guided prediction, fp32, of `latents` (1 row) at time `t`.

        `conditioning`: {rows: [1 or 2, tokens, width], guidance}.
        """
        import torch

        rows, guidance = conditioning["rows"], conditioning["guidance"]
        # The memory layout decides which kernel runs: the same one after a resume.
        pair = torch.cat([latents] * len(rows)).contiguous().to(self._dtype)
        predicted = self._unet(pair, t, encoder_hidden_states=rows, return_dict=False)[0].float()
        if len(rows) == 1:
            return predicted
        without, with_prompt = predicted[:1], predicted[1:]
        return without + guidance * (with_prompt - without)


def _denoise(tools):
    import torch

    place, request = tools.place, tools.input
    sampler = canonical_name(request["sampler"])
    model, load_s = place.models.get(request["model"], tools)
    tools.progress("run")
    started = time.monotonic()
    stats = {"remade": [], "resumed_from": 0, "checkpoint_refused": None, "load_s": load_s}
    tensors = _conditioning(model, tools, stats)
    names = ["positive"] if request["guidance"] == 1 else ["negative", "positive"]
    rows = torch.cat([tensors[name] for name in names]).to(place.device, model.dtype)
    conditioning = {"rows": rows, "guidance": request["guidance"]}
    del tensors

    generator = torch.Generator("cpu").manual_seed(request["seed"])
    scheduler = make_scheduler(sampler, model.scheduler_config, request["steps"])
    identity = {
        "request": {
            **{name: request[name] for name in protocol.DENOISE if name != "model"},
            "sampler": sampler,
        },
        "model": request["model"]["body_hash"],
        "fingerprint": place.identity,
    }
    latents, call = _resume(tools, scheduler, generator, identity, stats)
    if latents is None:
        shape = (
            1,
            model.unet.config.in_channels,
            request["height"] // model.scale,
            request["width"] // model.scale,
        )
        latents = torch.randn(shape, generator=generator, dtype=torch.float32) * float(
            scheduler.init_noise_sigma
        )
    latents = latents.to(place.device)

    denoiser, options = Denoiser(model), step_options(scheduler, generator)
    calls, first = len(scheduler.timesteps), call
    recent, checkpoints, pace = deque(maxlen=RECENT), 0, Pace(place.device)

    def save(at):
        snapshot = checkpoint.snapshot(latents, generator, scheduler, at, identity)
        tools.save_checkpoint(at, lambda: checkpoint.serialize(*snapshot))

    while call < calls:
        if tools.stop == "pause":
            if call == first and tools.data["checkpoint"] is None:
                raise Paused
            save(call)
            raise Paused(tools.finish_checkpoints())
        tools.check_stop()
        before = time.monotonic()
        t = scheduler.timesteps[call]
        predicted = denoiser.forward(scheduler.scale_model_input(latents, t), t, conditioning)
        latents = scheduler.step(predicted, t, latents, **options, return_dict=False)[0]
        pace.wait()
        call += 1
        tools.hold(latents.nbytes + rows.nbytes + checkpoint.scheduler_bytes(scheduler))
        recent.append(time.monotonic() - before)
        rate = len(recent) / max(sum(recent), 1e-6)
        tools.progress(
            "run", call=call, calls=calls, rate=round(rate, 3), eta_s=round((calls - call) / rate, 3)
        )
        if call < calls and tools.checkpoint_due(call):
            _check_finite(latents, call)
            save(call)
            checkpoints += 1
    _check_finite(latents, call)
    tools.finish_checkpoints()
    content = _save_tensors({"latents": latents.float().cpu().contiguous()}, {})
    stats.update(calls=calls - first, checkpoints=checkpoints, seconds=time.monotonic() - started)
    return protocol.result(files={"latents": tools.write("latents.safetensors", content)}, stats=stats)


class Pace:
    """Keeps the host at most one call ahead of the device, so that pause, progress and the watchdog speak of
    what has happened.
    """

    def __init__(self, device):
        self._device = device
        self._last = None

    def wait(self):
        if self._device.type != "cuda":
            return
        import torch

        event = torch.cuda.Event()
        event.record()
        if self._last is not None:
            self._last.synchronize()
        self._last = event


def _resume(tools, scheduler, generator, identity, stats):
    """(latents, call) of the checkpoint that was given, or (None, 0): none was, or it was refused, and
    `stats` says why.
    """
    try:
        content, sha256 = tools.read_checkpoint()
        if content is None:
            return None, 0
        latents, call = checkpoint.restore(content, sha256, scheduler, generator, identity)
    except (OSError, checkpoint.CheckpointRefused) as error:
        stats["checkpoint_refused"] = str(error)
        tools.log.warning("a checkpoint was refused: %s", error, extra={"request_id": tools.request_id})
        return None, 0
    stats["resumed_from"] = call
    return latents, call


def _conditioning(model, tools, stats):
    """The hint that was given, when it belongs to this request, model and build; else encoded again, which
    `stats` says.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    content, _ = tools.read("conditioning")
    if content is not None:
        try:
            tensors = load(content)
            with safe_open(tools.data["files"]["conditioning"]["path"], "pt") as file:
                belongs = (file.metadata() or {}).get("belongs")
            if belongs == _conditioning_identity(tools) and {"positive", "negative"} <= tensors.keys():
                return tensors
        except (SafetensorError, ValueError, OSError) as error:
            tools.log.warning(
                "the conditioning cannot be read: %s", error, extra={"request_id": tools.request_id}
            )
    stats["remade"].append("conditioning")
    tensors, stats["tokens_cut"] = _encode(model, tools)
    return tensors


def _conditioning_identity(tools):
    request = tools.input
    return checkpoint.digest(
        [request["model"]["body_hash"], request["prompt"], request["negative_prompt"], tools.place.identity]
    )


def _encode(model, tools):
    """({positive, negative}, how many tokens of the prompt did not fit).

    The text encoder's last hidden state, padded to its length.
    """
    tensors, cut = {}, 0
    length = min(model.tokenizer.model_max_length, model.text_encoder.config.max_position_embeddings)
    for name, text in (("positive", tools.input["prompt"]), ("negative", tools.input["negative_prompt"])):
        whole = len(model.tokenizer(text)["input_ids"])
        cut += max(0, whole - length)
        tokens = model.tokenizer(
            text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        hidden = model.text_encoder(tokens["input_ids"].to(tools.place.device))
        tensors[name] = hidden.last_hidden_state.float().cpu().contiguous()
        tools.advance()
    tools.hold(sum(tensor.nbytes for tensor in tensors.values()))
    return tensors, cut


def _check_finite(latents, call):
    import torch

    if not bool(torch.isfinite(latents).all()):
        raise DarkroomError(
            "inference.diverged",
            f"the latents are no longer finite after call {call}",
            details={"call": call},
        )


def _save_tensors(tensors, metadata):
    from safetensors.torch import save

    return save(tensors, metadata)
