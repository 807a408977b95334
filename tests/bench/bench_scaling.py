"""Whether the autoscaling of docker/k8s holds the waiting time, over a simulated day.

    python tests/bench/bench_scaling.py [--overlay gpu] [--hours 24] [--seed 0] [--start-up 60]

Nothing of gramlet runs here. Simulated are the devices, which divide their time among their descents and make the
others wait; Envoy, which sends each descent to the replica with the fewest; and Kubernetes' HorizontalPodAutoscaler,
with the numbers of the manifests themselves. A day has a quiet night, two busy times, and at 13:00 for ten minutes
twice as many callers. The same seed gives the same day.

A stylization waits from its arrival to its end, less the seconds that it would take on an idle device.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.autoscaler import Policy, policies
from tests.bench.scaling import LOADS, simulate


def compared(overlay: str) -> dict[str, dict[str, Policy]]:
    """The policy of the manifests, and others beside it."""
    shipped = policies(overlay)
    feature = shipped["feature"]
    others = {
        "always the least": replace(feature, most=feature.least),
        "16 waiting pictures, as until 0.1": replace(feature, metric="gramlet_queue_length", target=16),
        "half the target": replace(feature, target=feature.target / 2),
        "twice the target": replace(feature, target=feature.target * 2),
        "always the most": replace(feature, least=feature.most),
    }
    return {"the manifests'": shipped} | {name: shipped | {"feature": other} for name, other in others.items()}


def main() -> None:
    """Prints a table, and one JSON object a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlay", choices=list(LOADS), default="gpu")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-up", type=float, default=60.0, help="seconds until a new FeatureService is ready")
    chosen = parser.parse_args()
    rows = []
    for name, scaled in compared(chosen.overlay).items():
        load, end = LOADS[chosen.overlay], chosen.hours * 3600
        outcome = simulate(load, scaled, end=end, start_up=chosen.start_up, seed=chosen.seed)
        row = {"bench": "scaling", "overlay": chosen.overlay, "policy": name, "target": scaled["feature"].target}
        row |= {"stylizations": len(outcome.waits), "waited_median": round(outcome.wait(0.5), 1)}
        row |= {f"waited_{share:.1%}": round(outcome.wait(share), 1) for share in (0.95, 0.99, 0.999)}
        row |= {"refusals": outcome.refusals, "replicas_most": outcome.most_replicas}
        row |= {"replicas_mean": round(outcome.replica_seconds / end, 2)}
        row |= {"busy": round(outcome.busy_seconds / outcome.replica_seconds, 2)}
        row |= {"stylize_most": outcome.most_relays, "stylize_runs_most": outcome.most_runs}
        print(json.dumps(row), flush=True)
        rows.append(row)
    columns = [name for name in rows[0] if name not in ("bench", "overlay", "stylizations")]
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in columns)} |")


if __name__ == "__main__":
    main()
