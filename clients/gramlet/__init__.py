"""gramlet, the client: what a pretrained network knows about pictures, over gRPC.

    client = gramlet.Client("localhost:50051")
    for step in client.stylize("tubingen.jpg", "starry_night.jpg", size=512, iterations=300):
        print(step.iteration, step.loss)
    step.image.save("out.png")

`gramlet.AsyncClient` is the same for asyncio. Failures are `gramlet.GramletError`s.
"""

from gramlet._async.calls import AsyncEvents
from gramlet._async.client import AsyncClient
from gramlet._async.descent import AsyncDescent
from gramlet._async.feature import AsyncDifferentiation
from gramlet._async.runs import AsyncRun
from gramlet._async.stylize import AsyncStylizing
from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet._sync.descent import Descent
from gramlet._sync.feature import Differentiation
from gramlet._sync.runs import Run
from gramlet._sync.stylize import Stylizing
from gramlet.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    Code,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    GramletError,
    InternalError,
    InvalidCall,
    InvalidInput,
    NotFound,
    OtherWeights,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from gramlet.feature.descent_types import DescentSettings, DescentStart, DescentWeights
from gramlet.feature.see_types import (
    Box,
    Maximization,
    Patch,
    PatchField,
    Projection,
    SeeEvent,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeReconnecting,
    SeeRefused,
    SeeResult,
    SeeStarted,
)
from gramlet.feature.types import (
    Evaluation,
    Extraction,
    Features,
    Form,
    GramNormalization,
    Model,
    Objective,
    StageBalance,
    Style,
)
from gramlet.folders import Folder, FolderPicture, LeftOut
from gramlet.health import Health, ServerStatus
from gramlet.inputs.pictures import PictureInput, validate
from gramlet.run.types import Progress, RunDetails, RunError, RunInfo, RunKind, RunResult, RunState
from gramlet.stylize.optimizers import LossCurve, OptimizerChoice, OptimizerEvent
from gramlet.stylize.sets import SetEvent
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepQueued,
    SweepReconnecting,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Colors,
    Initial,
    Iteration,
    LineSearch,
    Optimizer,
    Preview,
    Queued,
    Reconnecting,
    Recovered,
    RemoteProgress,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
    StylizeSettings,
)
from gramlet.transport.channel import on_behalf_of, request_id
from gramlet.transport.tls import Tls
from gramlet.types import Array, ElementType, Limits, Pixels, Resize, ResizeMode, Timing

__all__ = [
    "Aborted",
    "Adjusted",
    "AlreadyExists",
    "Array",
    "AsyncClient",
    "AsyncDescent",
    "AsyncDifferentiation",
    "AsyncEvents",
    "AsyncRun",
    "AsyncStylizing",
    "Box",
    "Cancelled",
    "Checkpoint",
    "Client",
    "Code",
    "Colors",
    "DataLoss",
    "DeadlineExceeded",
    "Descent",
    "DescentSettings",
    "DescentStart",
    "DescentWeights",
    "Differentiation",
    "ElementType",
    "Evaluation",
    "Events",
    "Extraction",
    "FailedPrecondition",
    "Features",
    "Folder",
    "FolderPicture",
    "Form",
    "GramNormalization",
    "GramletError",
    "Health",
    "Initial",
    "InternalError",
    "InvalidCall",
    "InvalidInput",
    "Iteration",
    "LeftOut",
    "Limits",
    "LineSearch",
    "LossCurve",
    "Maximization",
    "Model",
    "NotFound",
    "Objective",
    "Optimizer",
    "OptimizerChoice",
    "OptimizerEvent",
    "OtherWeights",
    "Overloaded",
    "Patch",
    "PatchField",
    "PermissionDenied",
    "PictureInput",
    "Pixels",
    "Preview",
    "Progress",
    "Projection",
    "Queued",
    "Reconnecting",
    "Recovered",
    "RemoteProgress",
    "Resize",
    "ResizeMode",
    "Result",
    "Run",
    "RunDetails",
    "RunError",
    "RunInfo",
    "RunKind",
    "RunResult",
    "RunState",
    "ScaleStarted",
    "SeeEvent",
    "SeeOptimized",
    "SeePatches",
    "SeePreview",
    "SeeProgress",
    "SeeQueued",
    "SeeReconnecting",
    "SeeRefused",
    "SeeResult",
    "SeeStarted",
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
    "SweepReconnecting",
    "SweepRemoteProgress",
    "SweepResult",
    "SweepStarted",
    "Timing",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "on_behalf_of",
    "request_id",
    "validate",
]
