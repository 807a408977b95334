"""What `train`, `predict` and `heads` have in common: heads as text."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from gramlet.errors import counted
from gramlet.train.types import Findings, Head, Report


def describe(head: Head) -> str:
    """A head in one line."""
    state = "" if head.complete else ", incomplete"
    return (
        f"{head.name}/{head.version}: {head.accuracy:.1%} accuracy, {counted(len(head.classes), 'class', 'classes')}, "
        f"{head.outcome.recipe.title}, {head.bytes / 1e6:.1f} MB, {head.created}{state}"
    )


def report_lines(report: Report) -> list[str]:
    """A report as a small table."""
    width = max(cell_len(item.label) for item in report.classes)
    top = "".join(f", top-{k} {share:.1%}" for k, share in sorted(report.top.items()) if k > 1)
    return [
        f"{report.set}: {report.accuracy:.1%} ({report.accuracy_low:.1%} to {report.accuracy_high:.1%}) of "
        f"{counted(report.pictures, 'picture')}{top}, macro F1 {report.macro_f1:.3f}, "
        f"calibration error {report.calibration_error:.3f}",
        f"  {'':{width}}  precision  recall  pictures",
        *(
            f"  {set_cell_size(i.label, width)}  {i.precision:9.3f}  {i.recall:6.3f}  {i.support:8}"
            for i in report.classes
        ),
    ]


def finding_lines(findings: Findings) -> list[str]:
    """What is odd about the pictures of a training, a line for each."""
    lines = [f"skipped: {item.name}: {item.reason}" for item in findings.skipped]
    lines += [
        f"twice: {item.name} is {item.first}" + (", with another label: both left out" if item.conflicting else "")
        for item in findings.duplicates
    ]
    lines += [
        f"nearly the same: {item.name} and {item.first}" + (", with two labels" if item.conflicting else "")
        for item in findings.near_duplicates
    ]
    lines += [
        f"mislabeled? {item.name} looks like {item.suggestion} ({item.probability:.0%} of the votes of its neighbors)"
        for item in findings.suspects
    ]
    return lines
