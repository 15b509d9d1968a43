"""Text to conditioning, noise to latents, latents to pixels: one image per forward, so that an image is the same alone or among others."""

import time
from collections import deque

from darkroom import checkpoint, protocol, tensors
from darkroom.errors import DarkroomError, Paused
from darkroom.samplers import make_scheduler, step_options

# Calls that rate and time left are reckoned from.
RECENT = 8


def encode(tools):
    """inference.encode: file `conditioning`, safetensors with `positive` and `negative`, [1, tokens, width] fp32."""
    import torch

    model, load_s = tools.place.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    with torch.inference_mode():
        conditioning, cut = _encode(model, tools)
    file = tools.write("conditioning.safetensors", tensors.save(conditioning, {"belongs": _conditioning_belongs(tools)}))
    stats = {"seconds": time.monotonic() - started, "load_s": load_s, "tokens_cut": cut}
    return protocol.result(files={"conditioning": file}, stats=stats)


def denoise(tools):
    """inference.denoise: file `latents`, safetensors with `latents`, [1, channels, height / scale, width / scale] fp32.

    Raises `inference.diverged` and `inference.sampler_unknown`.
    """
    import torch

    model, load_s = tools.place.models.get(tools.input["model"], tools)
    started = time.monotonic()
    tools.progress("run")
    with torch.inference_mode():
        latents, stats = _denoise(model, tools)
    file = tools.write("latents.safetensors", tensors.save({"latents": latents}, {"belongs": _latents_belong(tools)}))
    return protocol.result(files={"latents": file}, stats={**stats, "load_s": load_s, "seconds": time.monotonic() - started})


def decode(tools):
    """inference.decode: file `pixels`, RGB8 row by row.

    Raises `artifact.missing` when the latents are missing, broken or of another model, build or hardware class.
    """
    import torch

    latents = _given_latents(tools)
    model, load_s = tools.place.models.get(tools.input["model"], tools)
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    width, height = tools.input["width"], tools.input["height"]
    expected = (1, model.vae.config.latent_channels, height // model.scale, width // model.scale)
    if tuple(latents.shape) != expected:
        raise _unusable_latents(f"their shape is {list(latents.shape)}, not {list(expected)}")
    with torch.inference_mode():
        config = model.vae.config
        scaled = latents.to(tools.place.device, torch.float32) / config.scaling_factor + (config.shift_factor or 0.0)
        tools.hold([latents, scaled])
        image = model.vae.decode(scaled, return_dict=False)[0][0]
        tools.hold([image])
        _check_finite(image, "the decoded picture")
        rgb = (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
        content = rgb.contiguous().cpu().numpy().tobytes()
    file = tools.write("pixels.rgb", content)
    stats = {"seconds": time.monotonic() - started, "load_s": load_s}
    return protocol.result({"width": width, "height": height}, {"pixels": file}, stats)


class Denoiser:
    """The network behind one function: what another way of running it (a CUDA graph, ONNX) has to offer."""

    def __init__(self, model):
        self._unet = model.unet
        self._dtype = model.dtype

    def forward(self, latents, t, conditioning):
        """Guided prediction, fp32, [1, …], of `latents`, fp32, [1, …], at time `t`.

        `conditioning`: {rows, guidance}. Two rows [2, tokens, width] are negative and positive, for classifier-free guidance
        (Ho and Salimans 2022, arXiv 2207.12598); one row is the positive alone.
        """
        import torch

        rows, guidance = conditioning["rows"], conditioning["guidance"]
        # The memory layout decides which kernel runs: the same one after a resume.
        given = torch.cat([latents] * len(rows)).contiguous().to(self._dtype)
        predicted = self._unet(given, t, encoder_hidden_states=rows, return_dict=False)[0].float()
        if len(rows) == 1:
            return predicted
        without, with_prompt = predicted[:1], predicted[1:]
        return without + guidance * (with_prompt - without)


class Drawing:
    """One image under way: what every call moves on, and what a checkpoint holds."""

    def __init__(self, model, place, request):
        import torch

        self._device = place.device
        self._generator = torch.Generator("cpu").manual_seed(request["seed"])
        self._scheduler = make_scheduler(request["sampler"], model.scheduler_config, request["steps"])
        self._options = step_options(self._scheduler, self._generator)
        self._identity = {
            "model": request["model"]["body_hash"],
            "request": {name: request[name] for name in protocol.DENOISE if name != "model"},
            "fingerprint": place.identity,
        }
        self._shape = (1, model.unet.config.in_channels, request["height"] // model.scale, request["width"] // model.scale)
        self.latents = None
        self.call = 0
        self.calls = len(self._scheduler.timesteps)

    def begin(self):
        """Noise: drawn on the CPU in fp32, so that a seed means the same on every device."""
        import torch

        noise = torch.randn(self._shape, generator=self._generator, dtype=torch.float32)
        self.latents = (noise * float(self._scheduler.init_noise_sigma)).to(self._device)

    def resume(self, content, given):
        """Raises checkpoint.CheckpointRefused; `begin` is then still possible."""
        self.latents = checkpoint.restore(content, given, self._scheduler, self._generator, self._identity, self._device)
        self.call = given["call"]

    def advance(self, denoiser, conditioning):
        t = self._scheduler.timesteps[self.call]
        predicted = denoiser.forward(self._scheduler.scale_model_input(self.latents, t), t, conditioning)
        self.latents = self._scheduler.step(predicted, t, self.latents, **self._options, return_dict=False)[0]
        self.call += 1

    def snapshot(self):
        """What `tensors.save` takes. Raises `inference.diverged` rather than keep what no call can mend."""
        self.check()
        return checkpoint.snapshot(self.latents, self._generator, self._scheduler, self.call, self._identity)

    def check(self):
        _check_finite(self.latents, f"the latents after call {self.call}")

    def tensors(self):
        return [self.latents, *checkpoint.tensors_of(vars(self._scheduler))]


class Pace:
    """How fast it goes. Keeps the host at most one call ahead of the device, so that pause, progress and the watchdog speak of what
    has happened.
    """

    def __init__(self, device):
        self._device = device
        self._last = None
        self._ends = deque([time.monotonic()], RECENT + 1)

    def wait(self):
        """After a call."""
        if self._device.type == "cuda":
            import torch

            event = torch.cuda.Event()
            event.record()
            if self._last is not None:
                self._last.synchronize()
            self._last = event
        self._ends.append(time.monotonic())

    def figures(self, left):
        """{rate, eta_s}: calls a second, and seconds that the `left` calls take, from the latest calls and what came between them."""
        rate = (len(self._ends) - 1) / max(self._ends[-1] - self._ends[0], 1e-6)
        return {"rate": round(rate, 3), "eta_s": round(left / rate, 3)}


def _denoise(model, tools):
    """(latents, stats). Raises Cancelled, or Paused with the checkpoint that holds all that was done."""
    import torch

    place, request = tools.place, tools.input
    drawing = Drawing(model, place, request)
    given, stats = _conditioning(model, tools)
    stats["checkpoint_refused"] = _begin(drawing, tools)
    stats["resumed_from"] = first = drawing.call
    names = ["positive"] if request["guidance"] <= 1 else ["negative", "positive"]
    rows = torch.cat([given[name] for name in names]).to(place.device, model.dtype)
    conditioning = {"rows": rows, "guidance": request["guidance"]}
    denoiser, pace = Denoiser(model), Pace(place.device)

    def save():
        snapshot = drawing.snapshot()
        tools.save_checkpoint(drawing.call, lambda: tensors.save(*snapshot))

    tools.hold([*given.values(), rows, *drawing.tensors()])
    while drawing.call < drawing.calls:
        tools.check_stop()
        if tools.stop == "pause":
            if drawing.call == first:
                raise Paused
            save()
            raise Paused(tools.finish_checkpoints())
        drawing.advance(denoiser, conditioning)
        tools.hold(drawing.tensors())
        pace.wait()
        tools.progress("run", call=drawing.call, calls=drawing.calls, **pace.figures(drawing.calls - drawing.call))
        if drawing.call < drawing.calls and tools.checkpoint_due(drawing.call):
            save()
    drawing.check()
    tools.finish_checkpoints()
    return drawing.latents, {**stats, "calls": drawing.calls - first}


def _begin(drawing, tools):
    """From the checkpoint that was given, or from noise. Returns why a checkpoint was refused, None when none was."""
    try:
        found = tools.read_checkpoint()
        if found is not None:
            drawing.resume(*found)
            return None
    except (OSError, checkpoint.CheckpointRefused) as error:
        tools.log.warning("a checkpoint was refused: %s", error, extra={"request_id": tools.request_id})
        drawing.begin()
        return str(error)
    drawing.begin()
    return None


def _conditioning(model, tools):
    """({positive, negative}, stats): the hint that was given when it belongs to this request, model and class; else encoded again."""
    content, problem = tools.read("conditioning")
    if content is not None:
        try:
            given, metadata = tensors.load(content)
            if metadata.get("belongs") == _conditioning_belongs(tools):
                return given, {"remade": []}
            problem = "it belongs to another request, model or class"
        except tensors.Unreadable as error:
            problem = str(error)
    tools.log.info("the conditioning is made again: %s", problem, extra={"request_id": tools.request_id})
    made, cut = _encode(model, tools)
    return made, {"remade": ["conditioning"], "tokens_cut": cut}


def _encode(model, tools):
    """({positive, negative}, how many tokens did not fit): the text encoder's last hidden state, padded to its length."""
    made, cut = {}, 0
    length = min(model.tokenizer.model_max_length, model.text_encoder.config.max_position_embeddings)
    for name, text in (("positive", tools.input["prompt"]), ("negative", tools.input["negative_prompt"])):
        cut += max(0, len(model.tokenizer(text)["input_ids"]) - length)
        tokens = model.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        hidden = model.text_encoder(tokens["input_ids"].to(tools.place.device)).last_hidden_state
        made[name] = hidden.float().cpu()
        tools.hold([hidden, made[name]])
        tools.advance()
    return made, cut


def _given_latents(tools):
    content, problem = tools.read("latents")
    if content is None:
        raise _unusable_latents(problem)
    try:
        given, metadata = tensors.load(content)
    except tensors.Unreadable as error:
        raise _unusable_latents(str(error)) from error
    if "latents" not in given or metadata.get("belongs") != _latents_belong(tools):
        raise _unusable_latents("they belong to another model, build or hardware class")
    return given["latents"]


def _unusable_latents(problem):
    return DarkroomError("artifact.missing", f"the latents cannot be used: {problem}", field="files.latents")


def _conditioning_belongs(tools):
    request = tools.input
    return checkpoint.digest([request["model"]["body_hash"], request["prompt"], request["negative_prompt"], tools.place.identity])


def _latents_belong(tools):
    return checkpoint.digest([tools.input["model"]["body_hash"], tools.place.identity])


def _check_finite(tensor, what):
    if not bool(tensor.isfinite().all()):
        raise DarkroomError("inference.diverged", f"{what} holds a number that is not finite")
