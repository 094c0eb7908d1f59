"""The side of d3rlpy in benchmarks/rl.py: a process in an environment of its own that learns, acts and is timed.

Reads one JSON request a line, answers one a line; arrays go through files of numpy.
"""

import io
import json
import sys
import time
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import BCQConfig, CQLConfig, IQLConfig, TD3PlusBCConfig
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models import VectorEncoderFactory


def configured(method: str, knobs: dict[str, Any]) -> Any:
    """The algorithm with the same networks, rates, batch and constants as ours."""
    encoder = VectorEncoderFactory(hidden_units=list(knobs["hidden"]))
    rate = knobs["learning_rate"]
    common = {
        "batch_size": knobs["batch_size"],
        "gamma": knobs["gamma"],
        "tau": knobs["averaging"],
        "actor_learning_rate": rate,
        "critic_learning_rate": rate,
        "actor_encoder_factory": encoder,
        "critic_encoder_factory": encoder,
    }
    if method == "batchrl_mtf":
        own = {"imitator_learning_rate": rate, "imitator_encoder_factory": encoder, "lam": 1.0, "beta": 0.5}
        own |= {"n_action_samples": knobs["candidates"], "action_flexibility": knobs["rho"]}
        return BCQConfig(**common, **own)
    if method == "cql":
        fixed = {"alpha_learning_rate": 0.0, "initial_alpha": 1.0, "temp_learning_rate": rate}
        own = {"conservative_weight": knobs["conservative"], "n_action_samples": knobs["samples"]}
        return CQLConfig(**common, **fixed, **own)
    if method == "iql":
        return IQLConfig(
            **common, value_encoder_factory=encoder, expectile=knobs["expectile"], weight_temp=knobs["temperature"]
        )
    return TD3PlusBCConfig(**common, alpha=knobs["alpha"])


def main() -> None:
    """Answer until the input ends."""
    threads, log_file = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, io.StringIO()  # its running commentary
    log = np.load(log_file)
    data = d3rlpy.dataset.MDPDataset(
        log["states"], log["actions"], log["rewards"], log["terminals"], timeouts=log["timeouts"]
    )
    algorithm: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        if asked["do"] == "build":
            d3rlpy.seed(asked["seed"])
            algorithm = configured(asked["method"], asked["knobs"]).create()
            algorithm.build_with_dataset(data)
        elif asked["do"] == "fit":
            began = time.perf_counter()
            steps = {"n_steps": asked["steps"], "n_steps_per_epoch": asked["steps"]}
            algorithm.fit(data, **steps, show_progress=False, logger_adapter=NoopAdapterFactory())
            answer["seconds"] = time.perf_counter() - began
        elif asked["do"] == "act":
            np.save(asked["to"], algorithm.predict(np.load(asked["of"])))
        answer["versions"] = {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__, "numpy": np.__version__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
