"""All benchmarks, one after another; each writes its own dated file into benchmarks/results/.

    make bench

Hours on two cores: nothing else should run beside it. Those that read data which is not shipped
(`accuracy_kuairand.py`, `fusion_kuairand.py`, `watch_time.py`, `ope_hillstrom.py`, `balancing.py --kuairand`) take its
place on their own command line, and are not among these.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    "metrics_speed.py",
    "false_verdicts.py",
    "fusion_search.py",
    "calibration.py",
    "selection_bias.py",
    "census.py",
    "claims.py",
    "task_correlation.py",
    "conflict.py",
    "simulator_certificate.py",
    "rl_sessions.py",
    "rl.py",
    "large_file.py",
    "balancing_cost.py",
    "precision.py",
    "step_profile.py",
    "peers.py",
)


def main() -> None:
    """Run every script; stop at the first that fails."""
    for script in SCRIPTS:
        print(f"\n== {script}", flush=True)
        subprocess.run([sys.executable, HERE / script], check=True)


if __name__ == "__main__":
    main()
