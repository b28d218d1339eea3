"""The device and the threads of a process."""

import os
import subprocess
import sys

import pytest
import torch

from fsframework.utils.device import pick_device

VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def test_threads_follow_the_cpus_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)  # affinity, and a container's quota
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    try:
        torch.set_num_threads(5)
        pick_device("cpu")
        assert torch.get_num_threads() == 5
        monkeypatch.delenv("OMP_NUM_THREADS")
        pick_device("cpu")
        assert torch.get_num_threads() == 3
        torch.set_num_threads(2)
        pick_device("cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.system
@pytest.mark.parametrize(
    ("given", "waiting"),
    [({}, "3000"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")],
    ids=["default", "policy", "count"],
)
def test_threads_option_and_waiting(given: dict[str, str], waiting: str) -> None:
    """`--threads` sets the number of threads, and `fsf` how long they wait unless the environment states it."""
    code = (
        "import os, sys, fsframework.cli.main as cli\n"
        "sys.argv = ['fsf', 'extract', 'missing.jpg', '-o', 'out', '--threads', '1']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "import torch; print(torch.get_num_threads(), os.environ.get('GOMP_SPINCOUNT'))"
    )
    kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**kept, **given})
    assert done.stdout == f"1 {waiting}\n", done.stderr
