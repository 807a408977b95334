"""`make bench`: every row, each in a process of its own, into tests/bench/RESULTS.md and RESULTS.json.

    python -m tests.bench [stylize features heads maps scale ...] [--device cuda]

Rows named run again, and the results of the others are kept. Some run only when named: BY_NAME.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS: dict[str, tuple[str, ...]] = {
    "peak": ("bench_peak.py",),
    "precision": ("bench_precision.py",),
    "stylize": ("bench_stylize.py",),
    "vgg": ("bench_stylize.py", "--sizes=256", "--iterations=8", "--rounds=2", "--ways=neural-style,vgg16"),
    "loss": (
        "bench_stylize.py",
        "--sizes=256",
        "--iterations=100",
        "--limit=600",
        "--ways=direct,one,one bfloat16",
    ),
    "loss-512": ("bench_stylize.py", "--sizes=512", "--iterations=100", "--rounds=1", "--ways=direct,one"),
    "three": ("bench_stylize.py", "--iterations=40", "--rounds=2", "--ways=direct,one,three"),
    "three-full": ("bench_stylize.py", "--sizes=256", "--iterations=130", "--rounds=2", "--ways=direct,one,three"),
    "compiled": ("bench_stylize.py", "--sizes=256", "--rounds=2", "--ways=direct,direct compiled,one"),
    "lbfgs": ("bench_descent.py", "lbfgs"),
    "states": ("bench_descent.py", "states"),
    "history": ("bench_descent.py", "history"),
    "scales": ("bench_descent.py", "scales"),
    "together": ("bench_descent.py", "together"),
    "footprint": ("bench_footprint.py", "peak"),
    "start": ("bench_footprint.py", "start"),
    "growth": ("bench_stylize.py", "--sizes=128,256,512,1024", "--iterations=5", "--rounds=1", "--ways=direct,one"),
    "features": ("bench_features.py", "--ways=bare,float32,bfloat16", "--rounds=2", "--calls=96"),
    "peers": ("bench_features.py", "--ways=float32,litserve,ray", "--rounds=1", "--calls=48"),
    "callers": ("bench_features.py", "--ways=float32", "--callers=1,8,32,64", "--rounds=1", "--calls=64"),
    "sizes": (
        "bench_features.py",
        "--ways=bare,float32",
        "--sizes=128,256,512,1024",
        "--callers=8",
        "--rounds=1",
        "--calls=24",
    ),
    "ingress": ("bench_ingress.py",),
    "company": ("bench_company.py",),
    "neighbor": ("bench_neighbor.py",),
    "memory": ("bench_memory.py",),
    "heads": ("bench_heads.py",),
    "maps": ("bench_maps.py",),
    "scale": ("bench_scale.py",),
    "runs": ("bench_runs.py",),
    "studio": ("bench_studio.py",),
    "scaling": ("bench_scaling.py",),
    "hostile": ("bench_hostile.py",),
}
"""Name to script and arguments. A script prints one JSON object a row; other lines are kept as they are."""
BY_NAME = ("precision", "loss-512", "compiled", "together", "three-full", "history", "hostile")
"""Rows that run only when they are named, so that all others take less than half an hour."""
TAKE_DEVICES = ("bench_precision.py", "bench_stylize.py", "bench_features.py")
"""Scripts whose rows can be measured on a GPU."""


def main(arguments: list[str] | None = None) -> int:
    """Runs rows; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], default=[])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the rows that compute on one")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    on = [] if parsed.device == "cpu" else [f"--device={parsed.device}"]
    able = [name for name, (script, *_) in ROWS.items() if not on or script in TAKE_DEVICES]
    chosen = [name for name in parsed.rows or ROWS if name in able and (parsed.rows or name not in BY_NAME)]
    file = HERE / "RESULTS.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    results["machine"] = machine()
    failed = []
    for name in chosen:
        print(f"bench: {name}", flush=True)
        results.setdefault("rows", {})[" ".join([name, *on])] = row = run(name, on)
        file.write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(report(results))
        if row["exit_code"]:
            failed.append(name)
    for name in failed:
        print(f"bench: {name} failed", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, more: list[str]) -> dict[str, Any]:
    """The results of one row, run with more options."""
    script, *options = *ROWS[name], *more
    began = time.monotonic()
    load = os.getloadavg()[0]
    rows, text = [], []
    with subprocess.Popen([sys.executable, HERE / script, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            for line in map(str.rstrip, process.stdout):
                print(line, flush=True)
                if line.startswith("{"):
                    rows.append(json.loads(line))
                else:
                    text.append(line)
        except BaseException:
            process.send_signal(signal.SIGINT)  # it stops the servers that it has started
            raise
    return {
        "command": f"python tests/bench/{' '.join([script, *options])}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "seconds": round(time.monotonic() - began),
        "load_before": round(load, 1),
        "exit_code": process.returncode,
        "results": rows,
        "text": text,
    }


def machine() -> dict[str, Any]:
    """What the rows were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "has": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in flags],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy", "grpcio", "protobuf")},
    }


def report(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    about = (
        "Written by `make bench`. All ways of a row were measured side by side in one run. Why: docs/performance.md."
    )
    parts = ["# Measured", "", about, ""]
    parts += [f"- {name}: {value}" for name, value in results["machine"].items()]
    for name, row in results["rows"].items():
        failed = f", **failed with {row['exit_code']}**" if row["exit_code"] else ""
        parts += ["", f"## {name}", "", f"`{row['command']}`, {row['date']}, {row['seconds']} s{failed}", ""]
        parts += table(row["results"]) + row["text"]
    return "\n".join(parts) + "\n"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of one script as a table; its columns are all fields that any of them has."""
    columns = list(dict.fromkeys(column for row in rows for column in row if column not in ("bench", "benchmark")))
    if not columns:
        return []
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    if isinstance(value, list) and len(value) > 4:
        return f"{_cell(value[0])} … {_cell(value[-1])}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
