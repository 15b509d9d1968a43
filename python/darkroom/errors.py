"""Errors as they travel to the node.

Codes, classes and remedies are those of the TypeScript side; test/fixtures/child-errors.json holds them for the tests of both.
"""

from __future__ import annotations

from typing import Any

CATALOGUE = {
    "artifact.missing": ("resource", "The bytes are gone; the step that made them runs again."),
    "device.lost": ("transient", "The device is gone; its steps move to another worker."),
    "inference.diverged": ("permanent", "Lower the guidance or choose another sampler; the latents became NaN."),
    "inference.sampler_unknown": ("permanent", "Use one of the samplers that GET /v1/workflows/image-generation lists."),
    "memory.exhausted": ("resource", "Draw a smaller picture, or free memory on the device."),
    "model.corrupt": ("permanent", "Fetch the model again; its files do not fit together."),
    "model.load_failed": ("permanent", "Read the worker log for the file that could not be loaded; fetch the model again."),
    "session.cancelled": ("cancelled", "Submit it again if it was not meant to end."),
    "worker.action_unknown": ("permanent", "Node and Python are of different versions; install one version of both."),
    "worker.busy": ("transient", "Try again in a moment."),
    "worker.failed": ("permanent", "Read the worker log around this time; then retry the session."),
    "worker.path_refused": (
        "permanent",
        "Keep models in a model folder and attempt files in the attempt folder; no link may lead out.",
    ),
    "worker.protocol": ("transient", "The Python child broke the protocol and is replaced; check that both sides have one version."),
    "worker.start_failed": ("permanent", "Run `darkroom doctor`; it names what is missing."),
}


class DarkroomError(Exception):
    """An error with a code of the catalogue. `message` says what happened, and to what."""

    def __init__(self, code: str, message: str, *, field: str | None = None, details: dict[str, Any] | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.details = details
        self.error_class, self.remedy = CATALOGUE[code]

    def to_wire(self) -> dict[str, Any]:
        """The data of an `error` frame."""
        wire = {
            "type": "error",
            "code": self.code,
            "class": self.error_class,
            # A file name in it may hold bytes that are no text.
            "message": self.message.encode(errors="replace").decode()[:4000],
            "remedy": self.remedy,
        }
        if self.field is not None:
            wire["field"] = self.field[:200]
        if self.details is not None:
            wire["details"] = self.details
        return wire


class Cancelled(BaseException):
    """The node asked for the end of the request. Not an Exception, so that no handler below takes it for a failure."""


class Paused(BaseException):
    """The request ends here and goes on elsewhere. `checkpoint`: what it goes on from, or None."""

    def __init__(self, checkpoint: dict[str, Any] | None = None):
        super().__init__()
        self.checkpoint = checkpoint
