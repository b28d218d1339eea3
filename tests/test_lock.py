"""Locks on outputs: held, freed, left by dead processes, of another host."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsframework.core.errors import UserError
from fsframework.inference.runner import _claimed
from fsframework.utils.lock import locked
from fsframework.utils.shards import JobShard

HOLDER = """
import sys, time
from pathlib import Path
from fsframework.core.errors import UserError
from fsframework.inference.runner import _claimed
from fsframework.utils.lock import locked
from fsframework.utils.shards import JobShard
with locked(Path(sys.argv[1]), "out.mp4"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_once_and_removed(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    file = tmp_path / ".out.mp4.lock"
    with locked(file, "out.mp4"):
        note = json.loads(file.read_text(encoding="utf-8"))
        assert note["process"] == os.getpid()
        hide = {f"process {os.getpid()}": "process 1", note["host"]: "HOST", note["since"]: "NOW"}
        with expect_error("out.mp4: is in work by process", hide=hide), locked(file, "out.mp4"):
            pass
    assert not file.exists()
    with locked(file, "out.mp4"):
        assert file.exists()
    assert not file.exists()


def test_a_lock_is_freed_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a.lock", "a"):
        raise ZeroDivisionError
    with locked(tmp_path / "a.lock", "a"):
        pass


@pytest.mark.system
def test_a_lock_of_a_killed_process_is_taken_over(
    tmp_path: Path, expect_error: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".out.mp4.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        note = json.loads(file.read_text(encoding="utf-8"))
        assert note["process"] == process.pid
        hide = {f"process {process.pid}": "process 1", note["host"]: "HOST", note["since"]: "NOW"}
        with expect_error("out.mp4: is in work by process", hide=hide), locked(file, "out.mp4"):
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert file.exists()
    with locked(file, "out.mp4"):
        assert json.loads(file.read_text(encoding="utf-8"))["process"] == os.getpid()
    said = capsys.readouterr().err
    assert said == f"note: out.mp4: the lock of process {process.pid} on {note['host']}, since {note['since']}, " + (
        "which ended, is taken over\n"
    )


def test_a_lock_of_another_host_is_not_taken_over(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    file = tmp_path / ".out.mp4.lock"
    text = json.dumps({"host": "elsewhere", "process": 7, "since": "2026-11-30T20:00:00+00:00"})
    file.write_text(text, encoding="utf-8")
    with expect_error("out.mp4: is in work by process 7", hide={str(tmp_path): "PLACE"}), locked(file, "out.mp4"):
        pass
    assert file.read_text(encoding="utf-8") == text
    file.unlink()
    with locked(file, "out.mp4"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_lock_with_a_broken_text_is_taken(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".out.mp4.lock"
    file.write_text(text, encoding="utf-8")
    with locked(file, "out.mp4"):
        assert json.loads(file.read_text(encoding="utf-8"))["process"] == os.getpid()


def test_shards_that_share_jobs_lock_each_other_out(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with _claimed(tmp_path, None, JobShard(1, 3)):
        with _claimed(tmp_path, None, JobShard(2, 3)), _claimed(tmp_path, None, JobShard(3, 6)):
            pass
        for other in (JobShard(1, 3), JobShard(), JobShard(1, 2), JobShard(4, 6)):
            with pytest.raises(UserError, match="is in work by"), _claimed(tmp_path, None, other):
                pass
        with _claimed(tmp_path, Path("pairs.csv"), JobShard()), _claimed(tmp_path, Path("more.csv"), JobShard()):
            pass
    assert not list(tmp_path.iterdir())
