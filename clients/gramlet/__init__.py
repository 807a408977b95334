"""gramlet, the client: what a pretrained network knows about pictures, over gRPC.

    client = gramlet.Client("localhost:50051")
    for step in client.stylize("tubingen.jpg", "starry_night.jpg", size=512, iterations=300):
        print(step.iteration, step.loss)
    step.image.save("out.png")

`gramlet.AsyncClient` is the same for asyncio. Failures are `gramlet.GramletError`s.
"""

from gramlet.aio import AsyncClient, AsyncDifferentiation
from gramlet.aio_stylize_calls import AsyncStylizing
from gramlet.channel import Tls, request_id
from gramlet.client import Client, Differentiation
from gramlet.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    GramletError,
    InternalError,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from gramlet.events import AsyncEvents, Events
from gramlet.sets import SetEvent
from gramlet.status import Health, ServerStatus
from gramlet.stylize_calls import Stylizing
from gramlet.types import (
    Adjusted,
    Checkpoint,
    Colors,
    ElementType,
    Evaluation,
    Extraction,
    Features,
    Form,
    GramNormalization,
    Initial,
    Iteration,
    LineSearch,
    Model,
    Objective,
    Optimizer,
    Preview,
    Queued,
    Recovered,
    Resize,
    ResizeMode,
    Result,
    StageBalance,
    Started,
    Style,
    StylizeEvent,
    StylizeSettings,
    SweepCell,
    SweepEvent,
    SweepQueued,
    SweepResult,
    SweepStarted,
)

__all__ = [
    "Aborted",
    "Adjusted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncDifferentiation",
    "AsyncEvents",
    "AsyncStylizing",
    "Cancelled",
    "Checkpoint",
    "Client",
    "Colors",
    "DeadlineExceeded",
    "Differentiation",
    "ElementType",
    "Evaluation",
    "Events",
    "Extraction",
    "FailedPrecondition",
    "Features",
    "Form",
    "GramNormalization",
    "GramletError",
    "Health",
    "Initial",
    "InternalError",
    "InvalidInput",
    "Iteration",
    "LineSearch",
    "Model",
    "NotFound",
    "Objective",
    "Optimizer",
    "Overloaded",
    "PermissionDenied",
    "Preview",
    "Queued",
    "Recovered",
    "Resize",
    "ResizeMode",
    "Result",
    "ServerStatus",
    "SetEvent",
    "StageBalance",
    "Started",
    "Style",
    "StylizeEvent",
    "StylizeSettings",
    "Stylizing",
    "SweepCell",
    "SweepEvent",
    "SweepQueued",
    "SweepResult",
    "SweepStarted",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "request_id",
]
