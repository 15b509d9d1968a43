"""Errors as they travel to the node. Codes, classes and remedies are the node's own, out of the schema."""

from __future__ import annotations

from typing import Any

from darkroom.schema import ERRORS


class DarkroomError(Exception):
    """An error with a code of the catalogue. `message` says what happened, and to what; `field`: the request's field
    that it is about.

    Raises KeyError for a code that is in no catalogue.
    """

    def __init__(self, code: str, message: str, *, field: str | None = None, details: dict[str, Any] | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.details = details
        self.error_class, self.remedy = ERRORS[code]["class"], ERRORS[code]["remedy"]

    def to_wire(self) -> dict[str, Any]:
        """The data of an `error` frame."""
        wire: dict[str, Any] = {
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
