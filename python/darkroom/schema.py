"""The protocol as the node declares it: `schema.json`, generated from src/workers/python/protocol.ts by `npm run
format`.

`DOCUMENT` holds JSON Schema of every frame (`envelope`, `requests`, `unasked`, `replies`, `results`) and what both
sides share: the error catalogue, samplers, model families, and the figures below.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_CONTENT = (Path(__file__).parent / "schema.json").read_bytes()

DOCUMENT: dict[str, Any] = json.loads(_CONTENT)
# What the handshake compares.
SHA256 = hashlib.sha256(_CONTENT).hexdigest()

VERSION: int = DOCUMENT["protocol"]
# Longest line either side may send, newline included, in bytes.
LINE_CAP: int = DOCUMENT["line_cap"]
HEARTBEAT_S: float = DOCUMENT["heartbeat_s"]
# Code → {class, remedy}.
ERRORS: dict[str, dict[str, str]] = DOCUMENT["errors"]
# Verbs that run on the device thread.
OPERATIONS: tuple[str, ...] = tuple(action for action in DOCUMENT["requests"] if not action.startswith("worker."))
