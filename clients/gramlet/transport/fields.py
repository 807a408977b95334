"""What a caller calls the field that an error of a server names.

Servers name the fields of their messages, such as `stylization.settings.size`, which callers in other languages know. A
caller of the SDK has given the keyword `size`.
"""

from __future__ import annotations

import re

from gramlet.transport.rpc import Rpc

_Rules = tuple[tuple[str, str], ...]

_PICTURE: _Rules = ((r"\.(encoded|pixels)\b.*", ""), (r"(?<=.)\.picture$", ""))
_RULES: dict[str, _Rules] = {
    "FeatureServiceStub": (
        (r"^(extraction|setup|evaluate)\.", ""),
        (r"^resize\.size$", "resize"),
        (r"^setup$", "objective"),
        *_PICTURE,
    ),
    "FeatureServiceStub/See": (
        (r"^start\.", ""),
        (r"^maximization\.size$", "optimized_size"),
        (r"^maximization\.", ""),
        (r"^resize\.size$", "resize"),
        (r"^items\b", "pictures"),
        *_PICTURE,
    ),
    "StylizeServiceStub": (
        (r"^(stylization|adjustment|start)\.", ""),
        (r"^(settings|objective)\.", ""),
        (r"^styles\b", "style"),
        (r"^previous_content\b", "previous"),
        (r"^(resume|watch)_run_id$", "run_id"),
        (r"^adjustment$", ""),
        *_PICTURE,
    ),
    "TrainServiceStub": (
        (r"^configuration\.seed$", "fold_seed"),
        (r"^configuration\.", ""),
        (r"^recipes\[0\]\.", ""),  # a single one has keywords of its own
        (r"^(dataset_uri|entries|picture\.entry)\b", "pictures"),
        (r"^(resume|watch)_run_id$", "run_id"),
        (r"^head\.(name|version)$", "head"),
        *_PICTURE,
    ),
    "EmbedServiceStub": (
        (r"^start\.", ""),
        (r"^settings\.", ""),
        (r"^tsne\.", ""),
        (r"^perplexities\b", "perplexity"),
        (r"^resize\.size$", "resize"),
        (r"^((resume|watch)_map_id|run_id|watch_run_id|resume_run_id)$", "map_id"),  # the run of a map has its name
        (r"^(count|item)\b.*", "items"),
        *_PICTURE,
    ),
    "RunServiceStub": (),
}
"""For the stub of each service, or one method: what is replaced in the names of fields, in this order."""


def keyword_of(field: str, rpc: Rpc) -> str:
    """The keyword of the SDK whose value went into a field of an RPC's request."""
    service = rpc.stub.__name__
    for pattern, replacement in _RULES.get(f"{service}/{rpc.method}", _RULES.get(service, ())):
        field = re.sub(pattern, replacement, field)
    return field
