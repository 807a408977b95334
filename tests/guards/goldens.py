"""Golden files: what the product's outside looked like when somebody last looked at it and agreed.

GRAMLET_UPDATE_GOLDENS=1 makes the tests write the files anew instead of comparing with them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "goldens"
UPDATES = bool(os.environ.get("GRAMLET_UPDATE_GOLDENS"))
HINT = "if this change is meant, run the test with GRAMLET_UPDATE_GOLDENS=1 and commit the difference"


def golden_text(name: str, found: str) -> str:
    """What the golden file holds; with the switch, after what was found has been written into it."""
    path = FOLDER / name
    if UPDATES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    assert path.exists(), f"{path} is missing; {HINT}"
    return path.read_text()


def golden_json(name: str, found: Any) -> Any:
    """The same for values that JSON can hold."""
    return json.loads(golden_text(name, json.dumps(found, indent=1, ensure_ascii=False) + "\n"))
