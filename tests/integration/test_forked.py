"""Programs that run in forks end with the process that started them."""

import os
import signal
import subprocess
import time
from pathlib import Path

from harness.forked import programs

SLEEPER = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_program_whose_client_is_killed_is_interrupted(tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    number = tmp_path / "pid"
    client = subprocess.Popen(
        [programs() / "python", tmp_path / "sleeper.py", number], stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(lambda: number.exists() and number.read_text())
    process = int(number.read_text())
    assert process != client.pid
    os.killpg(client.pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{process}").exists())


def test_a_program_that_ends_gives_its_status(tmp_path):
    (tmp_path / "fails.py").write_text("import sys\nsys.exit(7)\n")
    assert subprocess.run([programs() / "python", tmp_path / "fails.py"], check=False).returncode == 7


def test_a_module_runs_as_a_program(tmp_path):
    (tmp_path / "tells.py").write_text("import sys\nprint(__name__, sys.argv, sys.path[0])\n")
    command = [programs() / "python", "-m", "tells", "a", "b"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__main__", f"['{tmp_path}/tells.py',", "'a',", "'b']", str(tmp_path)]
    assert subprocess.run([*command[:2], "nothing"], capture_output=True, check=False).returncode == 1
