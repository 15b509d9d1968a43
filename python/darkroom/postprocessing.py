"""What happens to pixels that were drawn or came in: each verb of the domain that runs here."""

from __future__ import annotations

import time
from typing import Any

import numpy

from darkroom import frames, pictures
from darkroom.errors import DarkroomError
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
    return frames.result({"scores": _scores(tools, pictures.whole(tools))}, stats={"seconds": time.monotonic() - started})


def score(tools: Tools) -> dict[str, Any]:
    """postprocessing.score: `pictures`, in the order of the request's: `scores` as of `check`, and `problem`, None or
    why a picture could not be looked at. Files `picture0`, `picture1` …, PNGs.

    Raises `safety.classifier_broken`, and as `Classifiers.get`; Cancelled, and Paused with nothing to go on from.
    """
    started = time.monotonic()
    made: list[dict[str, Any]] = []
    count = len(tools.input["pictures"])
    for number, pin in enumerate(tools.input["pictures"]):
        tools.check_stop(can_pause=True)
        try:
            made.append({"scores": _scores(tools, pictures.shown(tools, f"picture{number}", pin)), "problem": None})
        except DarkroomError as error:
            if error.code != "inference.picture_unreadable":
                raise
            made.append({"scores": [], "problem": error.message})
        tools.progress("run", call=number + 1, calls=count)
    return frames.result({"pictures": made}, stats={"seconds": time.monotonic() - started})


def faces(tools: Tools) -> dict[str, Any]:
    """postprocessing.faces: file `pixels`, RGB8 or, of a picture with transparency, RGBA8 row by row: the file
    `picture` with each face that the request's `detector` finds restored by its `restorer`, `strength` of it, 0 to 1.
    `faces`: how many; `has_alpha`: which of the two.

    Raises `inference.picture_unreadable`, `postprocessing.diverged`, and as `Faces.detector` and `Faces.restorer`;
    Cancelled, and Paused with nothing to go on from.
    """
    from darkroom.faces import restored

    request, runtime = tools.input, tools.runtime
    tools.check_stop(can_pause=True)
    started = time.monotonic()
    tools.progress("run")
    detect, restore = runtime.faces.detector(request["detector"]), runtime.faces.restorer(request["restorer"])
    given = pictures.incoming(tools)
    made = numpy.ascontiguousarray(given[..., :3])
    found = detect(made)
    for number, face in enumerate(found):
        tools.check_stop(can_pause=True)
        tools.progress("run", call=number, calls=len(found))
        made = restored(made, face, restore, request["strength"], runtime.device)
    has_alpha = given.shape[2] == 4
    whole = numpy.dstack([made, given[..., 3]]) if has_alpha else made
    file = tools.write("pixels.raw", numpy.ascontiguousarray(whole).data.cast("B"))
    told = {"faces": len(found), "has_alpha": has_alpha}
    return frames.result(told, files={"pixels": file}, stats={"seconds": time.monotonic() - started})


def _scores(tools: Tools, picture: numpy.ndarray) -> list[list[dict[str, Any]]]:
    """What each classifier of the request says of a picture, [rows, columns, 3]."""
    scores = []
    for reference in tools.input["classifiers"]:
        found = tools.runtime.classifiers.get(reference).scores(picture)
        scores.append([{"category": category, "score": score} for category, score in found.items()])
        tools.advance()
    return scores
