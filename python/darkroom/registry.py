"""Which function an action is: `inference.denoise` is `darkroom.inference.denoise`, if the schema has that action."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from darkroom.errors import DarkroomError
from darkroom.schema import OPERATIONS
from darkroom.tools import Tools


def operation(action: str) -> Callable[[Tools], dict[str, Any]]:
    """The function (tools) → result of an action. Raises `worker.action_unknown`."""
    if action not in OPERATIONS:
        raise DarkroomError("worker.action_unknown", f"there is no action {action!r}", field="action")
    module, verb = action.split(".")
    return getattr(importlib.import_module(f"darkroom.{module}"), verb)
