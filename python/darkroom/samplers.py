"""Samplers by the names that AUTOMATIC1111's web UI gives them; ComfyUI's spellings are understood too.

A scheduler is built from the model's own configuration, so prediction type and betas survive.
"""

import difflib
import inspect

from darkroom.errors import DarkroomError

KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}

# name: (diffusers class, options, ComfyUI's spelling)
SAMPLERS = {
    "Euler": ("EulerDiscreteScheduler", {}, "euler"),
    "Euler Karras": ("EulerDiscreteScheduler", KARRAS, "euler karras"),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}, "euler_ancestral"),
    "Heun": ("HeunDiscreteScheduler", {}, "heun"),
    "Heun Karras": ("HeunDiscreteScheduler", KARRAS, "heun karras"),
    "DPM2": ("KDPM2DiscreteScheduler", {}, "dpm_2"),
    "DPM2 Karras": ("KDPM2DiscreteScheduler", KARRAS, "dpm_2 karras"),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}, "dpm_2_ancestral"),
    "DPM2 a Karras": ("KDPM2AncestralDiscreteScheduler", KARRAS, "dpm_2_ancestral karras"),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}, "dpmpp_2m"),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"solver_order": 2, **KARRAS}, "dpmpp_2m karras"),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"solver_order": 2, **SDE}, "dpmpp_2m_sde"),
    "DPM++ 2M SDE Karras": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, **SDE, **KARRAS},
        "dpmpp_2m_sde karras",
    ),
    "DPM++ 3M SDE": ("DPMSolverMultistepScheduler", {"solver_order": 3, **SDE}, "dpmpp_3m_sde"),
    "DPM++ 3M SDE Karras": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 3, **SDE, **KARRAS},
        "dpmpp_3m_sde karras",
    ),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {"solver_order": 2}, "dpmpp_2s"),
    "DPM++ 2S Karras": ("DPMSolverSinglestepScheduler", {"solver_order": 2, **KARRAS}, "dpmpp_2s karras"),
    "DDIM": ("DDIMScheduler", {}, "ddim"),
    "DDPM": ("DDPMScheduler", {}, "ddpm"),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}, "plms"),
    "UniPC": ("UniPCMultistepScheduler", {}, "uni_pc"),
    "UniPC Karras": ("UniPCMultistepScheduler", KARRAS, "uni_pc karras"),
    "DEIS": ("DEISMultistepScheduler", {}, "deis"),
    "LCM": ("LCMScheduler", {}, "lcm"),
    "TCD": ("TCDScheduler", {}, "tcd"),
    "SA-Solver": ("SASolverScheduler", {}, "sa_solver"),
}

# What other programs offer and this one does not, with the nearest thing that it does.
ELSEWHERE = {
    "dpm++ sde": "DPM++ 2M SDE",
    "dpm++ sde karras": "DPM++ 2M SDE Karras",
    "dpmpp_sde": "DPM++ 2M SDE",
    "dpm++ 2s a": "DPM++ 2S",
    "dpm++ 2s a karras": "DPM++ 2S Karras",
    "dpmpp_2s_ancestral": "DPM++ 2S",
    "dpm fast": "DPM++ 2M",
    "dpm adaptive": "DPM++ 2M",
    "restart": "Euler a",
    "lms": "DEIS",
    "lms karras": "DPM++ 2M Karras",
    "ipndm": "PLMS",
    "heunpp2": "Heun",
    "res_multistep": "DPM++ 2M",
    "er_sde": "DPM++ 2M SDE",
    "seeds_2": "DPM++ 2M SDE",
    "seeds_3": "DPM++ 3M SDE",
    "gradient_estimation": "Euler",
    "ddim_uniform": "DDIM",
}

_BY_SPELLING = {
    spelling.lower(): name for name, (_, _, comfy) in SAMPLERS.items() for spelling in (name, comfy)
}


def canonical_name(name):
    """The name a sampler has here.

    Raises `inference.sampler_unknown`, which names the nearest that is offered.
    """
    spelling = " ".join(name.lower().split())
    if spelling in _BY_SPELLING:
        return _BY_SPELLING[spelling]
    nearest = ELSEWHERE.get(spelling)
    if nearest is None:
        close = difflib.get_close_matches(spelling, _BY_SPELLING, n=1, cutoff=0.0)
        nearest = _BY_SPELLING[close[0]] if close else "Euler"
    raise DarkroomError(
        "inference.sampler_unknown",
        f"there is no sampler {name!r}; the nearest is {nearest!r}",
        field="input.sampler",
        details={"nearest": nearest},
    )


def make_scheduler(name, model_config, steps):
    """A scheduler of its own for one request, set to `steps`; its timesteps stay on the CPU."""
    import diffusers

    class_name, options, _ = SAMPLERS[canonical_name(name)]
    scheduler = getattr(diffusers, class_name).from_config(model_config, **options)
    scheduler.set_timesteps(steps, device="cpu")
    return scheduler


def step_options(scheduler, generator):
    """What `scheduler.step` takes besides prediction, time and latents: the request's generator where noise
    is drawn.
    """
    if "generator" in inspect.signature(scheduler.step).parameters:
        return {"generator": generator}
    return {}
