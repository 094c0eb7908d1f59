"""All benchmarks, one after another; each writes its own dated file into benchmarks/results/.

    make bench

About two hours on two cores: nothing else should run beside it.
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
    "large_file.py",
    "peers.py",
)


def main() -> None:
    """Run every script; stop at the first that fails."""
    for script in SCRIPTS:
        print(f"\n== {script}", flush=True)
        subprocess.run([sys.executable, HERE / script], check=True)


if __name__ == "__main__":
    main()
