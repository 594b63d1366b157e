# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from musiq_hf.metrics.correlation import evaluate_module_path, quality_metrics

PREDICTIONS, REFERENCES = [20.0, 40.0, 40.0, 70.0, 90.0], [10.0, 50.0, 30.0, 60.0, 60.0]
SCRIPT = f"""
import json, sys

def watch(event, arguments):
    if event == "socket.getaddrinfo":
        raise OSError(f"no network, but {{arguments[0]}} was asked for")

sys.addaudithook(watch)
from musiq_hf.metrics.correlation import evaluate_module_path
assert "evaluate" not in sys.modules
import evaluate
metric = evaluate.load(evaluate_module_path())
whole = metric.compute(predictions={PREDICTIONS}, references={REFERENCES})
for prediction, reference in zip({PREDICTIONS}, {REFERENCES}):
    metric.add(prediction=prediction, reference=reference)
print(json.dumps([whole, metric.compute(), metric.name, metric.citation]))
"""


@pytest.mark.slow
def test_evaluate_loads_the_module_without_network(tmp_path):
    """In a process of its own, as a user would, from another directory and with empty caches."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(evaluate_module_path()).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    whole, added, name, citation = json.loads(done.stdout.splitlines()[-1])
    assert whole == added == quality_metrics(PREDICTIONS, REFERENCES)
    assert name == "evaluate_iqa"
    assert "ke2021musiq" in citation


def test_the_module_lies_in_the_folder_of_its_name():
    folder = Path(evaluate_module_path())
    assert (folder / f"{folder.name}.py").is_file()
