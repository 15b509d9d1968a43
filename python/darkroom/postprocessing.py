"""What happens to pixels that were drawn or came in: each verb of the domain that runs here."""

from __future__ import annotations

import time
from typing import Any

from darkroom import frames, pictures
from darkroom.tools import Tools


def upscale(tools: Tools) -> dict[str, Any]:
    """postprocessing.upscale: see `upscaling.upscale`."""
    from darkroom import upscaling

    return upscaling.upscale(tools)


def check(tools: Tools) -> dict[str, Any]:
    """postprocessing.check: `scores`, of each of the `classifiers` in their order a list of {category, score}, 0 to 1,
    for the file `picture`: a PNG, or where the request has `drawn` what `inference.decode` has made.

    Raises `safety.classifier_broken`, `inference.picture_unreadable`, `artifact.missing` for what was drawn and is
    gone, and as `Classifiers.get`; Cancelled, and Paused with nothing to go on from.
    """
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    picture = pictures.whole(tools)
    scores = []
    for reference in tools.input["classifiers"]:
        found = tools.runtime.classifiers.get(reference).scores(picture)
        scores.append([{"category": category, "score": score} for category, score in found.items()])
        tools.advance()
    return frames.result({"scores": scores}, stats={"seconds": time.monotonic() - started})
