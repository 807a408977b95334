"""`gramlet train`: trains a classification head on labeled pictures, to be used at once by `gramlet predict`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet.cli.arguments import (
    command_line,
    file_path,
    members_of,
    names,
    nonempty,
    show_defaults,
    values_of,
    weights,
)
from gramlet.cli.detaching import add_detach, detach, note_left
from gramlet.cli.files import check_apart, check_directory, png_as, write_atomically
from gramlet.cli.terminal import Meter, Terminal
from gramlet.cli.training import describe, finding_lines, report_lines
from gramlet.errors import GramletError, InvalidInput
from gramlet.json_codec import plain
from gramlet.run.types import RunKind
from gramlet.train.configuration import (
    DEFAULT_RECIPES,
    ClassWeights,
    Configuration,
    HeadKind,
    Metric,
    Optimizer,
    Recipe,
    Schedule,
    Strategy,
    Unreadable,
)
from gramlet.train.inputs import DataOptions, RecipeOptions, make_recipe
from gramlet.train.types import (
    Accepted,
    Epoch,
    Event,
    Extracting,
    Queued,
    RemoteProgress,
    Result,
    Skipped,
    Started,
    Step,
)

FIELDS = {"run_id": ("resume", "run_id")}
WITH_RESUME = ("report", "detach")
HELP = "train a classification head on labeled pictures"
_RECIPE, _DATA = tuple(RecipeOptions.__annotations__), tuple(DataOptions.__annotations__)
_SHOWN_FINDINGS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the name and every setting."""
    parser.add_argument("pictures", nargs="?", help="a folder <class>/* or {train,val,...}/<class>/*; or an s3:// URI")
    parser.add_argument("--name", help="of the head; training again gives its next version")
    parser.add_argument("--on-server", action="store_true", help="the folder is the server's: nothing is sent")
    parser.add_argument("--resume", type=nonempty, metavar="RUN", help="go on with a run that was cut off")
    parser.add_argument("--run-id", help="name of the run; default: a random one")
    add_detach(parser)
    parser.add_argument(
        "--report", type=file_path, metavar="DIR", help="write learning curves and confusion matrix there"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--size", type=int, help="pictures are cut to squares of this side, in pixels")
    data.add_argument("--views", type=int, metavar="N", help="augmented views of each training picture")
    data.add_argument("--folds", type=int, metavar="N", help="of the cross-validation; 0: by the number of pictures")
    data.add_argument("--fold-seed", type=int, metavar="N", help="seed of the folds (0)")
    data.add_argument("--unreadable", choices=values_of(Unreadable), help="what a bad picture does")
    data.add_argument("--keep-on-cancel", action="store_true", default=None, help="Ctrl-C keeps the best head so far")
    show_defaults(data, Configuration("", ()))
    recipe = parser.add_argument_group("recipe", "Several kinds or strategies, by commas, are compared.")
    _add_recipe(recipe)
    show_defaults(recipe, Recipe(), kind=tuple(each.kind for each in DEFAULT_RECIPES))


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    kinds = "mlp, linear, logistic; beside other settings mlp alone"
    group.add_argument("--kind", type=members_of(HeadKind), metavar="KIND", help=kinds)
    group.add_argument("--strategy", type=members_of(Strategy), metavar="S", help="head, all_at_once, head_then_stages")
    group.add_argument("--stages", type=names, metavar="STAGE,...", help="to unfreeze: layer4, or layer3,layer4, ...")
    _add_optimization(group)
    group.add_argument("--metric", choices=values_of(Metric), help="what early stopping watches")
    group.add_argument("--patience", type=int, metavar="N", help="epochs without improvement; 0: no end")
    group.add_argument(
        "--class-weights",
        choices=values_of(ClassWeights),
        help="balanced: rare classes count more; auto: if classes are imbalanced",
    )
    group.add_argument(
        "--label-smoothing", type=float, metavar="S", help="share of each label that goes to the other classes"
    )
    group.add_argument(
        "--update-batch-norm", action="store_true", default=None, help="of unfrozen stages; else it stays frozen"
    )
    group.add_argument(
        "--no-calibration",
        dest="calibrate",
        action="store_false",
        default=None,
        help="leave probabilities as they come",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of the first weights and the order of pictures")


def _add_optimization(group: argparse._ArgumentGroup) -> None:
    """Adds how the weights are changed: the optimizer, its rates, the epochs and their schedule."""
    group.add_argument("--stage-rates", type=weights, metavar="STAGE=R,...", help="learning rate of single stages")
    group.add_argument("--stage-learning-rate", type=float, metavar="R", help="of the last unfrozen stage")
    group.add_argument("--optimizer", choices=values_of(Optimizer), help="of the head and of unfrozen stages")
    group.add_argument("--learning-rate", type=float, metavar="R", help="of the head (adamw 0.001, sgd 0.01, lbfgs 1)")
    group.add_argument("--head-rate-factor", type=float, metavar="F", help="on it, once stages are unfrozen")
    group.add_argument("--epochs", type=int, metavar="N", help="of the head (mlp 15, linear 60)")
    group.add_argument("--stage-epochs", type=int, metavar="N", help="with unfrozen stages")
    group.add_argument("--batch-size", type=int, metavar="N", help="pictures in a step")
    group.add_argument("--weight-decay", type=float, metavar="D", help="of the optimizer")
    group.add_argument("--schedule", choices=values_of(Schedule), help="of the learning rate")
    group.add_argument(
        "--warmup-epochs",
        type=int,
        metavar="N",
        help="first epochs, in which the learning rate rises (1 with unfrozen stages)",
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Trains or resumes, shows how it goes, and reports."""
    if arguments.detach:
        return detach(_events(arguments, client), arguments, terminal, until=(Started, RemoteProgress, Result))
    if arguments.report:
        check_apart(arguments.report, filter(None, [arguments.pictures]), "--report")
        check_directory(arguments.report, "--report")
    shown = Shown(terminal, arguments.report)

    def left() -> None:
        if shown.run_id:
            pictures = [arguments.pictures] if arguments.pictures else []
            note_left(arguments, client, terminal, RunKind.TRAIN, shown.run_id, *pictures)
            if arguments.keep_on_cancel:
                terminal.note(_kept(client, arguments.name, shown.run_id))

    with _events(arguments, client) as events:
        terminal.follow(events, "training", shown.show, left)
    if shown.result is not None:
        head = shown.result.head
        _tell(shown.result, terminal, command_line(arguments, "heads", "show", f"{head.name}/{head.version}"))
    return 0


def _kept(client: Client, name: str, run_id: str) -> str:
    """Whether the server kept a head of a run that was cancelled; waits until the run has stopped."""
    try:
        client.run(run_id).stop()
        kept = [head for head in client.heads(name) if head.run_id == run_id]
    except GramletError as error:
        return f"not known whether a head was kept: {error.message}"
    if not kept:
        return "no head was kept: no epoch had ended"
    return f"kept the best head so far: {describe(kept[0])}"


def _events(arguments: argparse.Namespace, client: Client) -> Events[Event, Result]:
    if arguments.resume:
        return client.resume_training(arguments.resume, arguments.pictures, detached=arguments.detach)
    if not arguments.pictures or not arguments.name:
        missing = "name" if arguments.pictures else "pictures"
        raise InvalidInput("give the pictures, and a name for the head", field=missing)
    recipes = _recipes(_given(arguments, _RECIPE))
    return client.train(
        arguments.pictures,
        name=arguments.name,
        recipes=recipes,
        on_server=arguments.on_server,
        run_id=arguments.run_id,
        detached=arguments.detach,
        **_given(arguments, _DATA),
    )


def _given(arguments: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _recipes(options: dict[str, Any]) -> list[Recipe]:
    """One recipe for each combination of what is compared; stages belong to strategies that unfreeze some."""
    if not options:
        return list(DEFAULT_RECIPES)
    recipes = []
    for strategy in options.get("strategy", [Strategy.HEAD]):
        for kind in options.get("kind", [HeadKind.MLP]):
            one = {**options, "strategy": strategy, "kind": kind}
            if strategy is Strategy.HEAD and len(options.get("strategy", ())) > 1:
                one.pop("stages", None)
                one.pop("stage_rates", None)
            recipes.append(make_recipe(one))
    return recipes


class Shown:
    """Shows the events of a training: the bar, notes, drawings; and remembers how to go on."""

    def __init__(self, terminal: Terminal, report: Path | None) -> None:
        self._terminal = terminal
        self._report = report
        self.run_id = ""
        self.result: Result | None = None

    def show(self, event: Event, meter: Meter) -> None:
        """Prints what there is to print, moves the bar, writes drawings."""
        match event:
            case Queued():
                meter.update(0, None, f"waiting, {event.position} before")
            case Accepted():
                self.run_id = event.run_id
            case Extracting():
                meter.update(event.done, event.total, f"pictures through the network, {event.cached} cached")
            case Skipped():
                self._terminal.note(f"{event.name}: {event.reason}; skipped")
            case Started():
                meter.update(event.epoch, None, event.title)
            case Step():
                meter.update(event.batch, event.batches, f"epoch {event.epoch}")
            case Epoch():
                meter.update(
                    event.epoch, event.epochs, f"loss {event.validation_loss:.4f} accuracy {event.accuracy:.1%}"
                )
            case RemoteProgress(progress=progress):
                meter.update(progress.done, progress.total or None, f"{progress.phase}, on another replica")
            case Result():
                self.result = event
                self._write(event)
        self._terminal.event(type(event).__name__.lower(), **self._values(event))

    def _values(self, event: Event) -> dict[str, Any]:
        values: dict[str, Any] = plain(event)
        # The history has been reported epoch by epoch.
        for outcome in [*values.get("outcomes", []), *([values["head"]["outcome"]] if "head" in values else [])]:
            del outcome["history"]
        if "head" in values:
            values["accuracy"] = values["head"]["outcome"]["reports"][0]["accuracy"]
        return values

    def _write(self, result: Result) -> None:
        if self._report:
            for name in ("learning_curves", "confusion_matrix"):
                path = self._report / f"{name}.png"
                write_atomically(path, png_as(getattr(result, name), path))


def _tell(result: Result, terminal: Terminal, all_findings: str) -> None:
    if len(result.outcomes) > 1:
        for number, outcome in enumerate(result.outcomes):
            numbers = ", ".join(f"{r.set} {r.accuracy:.1%} (loss {r.loss:.3f})" for r in outcome.reports)
            is_best = number == result.best
            metric = result.outcomes[0].recipe.metric.value.replace("_", " ")
            kept = f", kept by its out-of-fold {metric}" if is_best else ""
            terminal.say(f"{'*' if is_best else ' '} {outcome.recipe.title}: {numbers}, {outcome.seconds:.1f} s{kept}")
    for report in result.head.outcome.reports:
        for line in report_lines(report):
            terminal.say(line)
    lines = finding_lines(result.head.findings)
    for line in lines[:_SHOWN_FINDINGS]:
        terminal.say(line)
    if len(lines) > _SHOWN_FINDINGS:
        terminal.say(f"... and {len(lines) - _SHOWN_FINDINGS} more: {all_findings}")
    for warning in result.head.findings.warnings:
        terminal.say(f"note: {warning}")
    terminal.say(describe(result.head))
    terminal.say(f"features {result.feature_seconds:.1f} s, training {result.fit_seconds:.1f} s")
