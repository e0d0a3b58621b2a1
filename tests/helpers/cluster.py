"""A real SLURM cluster on loopback: its controller, two nodes with a fake GPU each, and munge, which signs messages.

The programs look for their configuration in `/etc/slurm` and for munge in `/run/munge`. They run in mount and process
namespaces of their own, where these are other folders: an installed cluster is neither seen nor touched, and all
processes end with the namespace.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.azurite import free_port

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "setpriv")
NODES = ("n1", "n2")

# No accounting and no cgroups: neither works everywhere. Jobs are followed by their parent processes (linuxproc).
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=5
MinJobAge=7200
KillWait=5
SlurmdParameters=config_overrides
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=500
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=64000 Gres=gpu:1\n"
START = """
mount --make-rprivate /
mount -t tmpfs none /run && mkdir /run/munge && chown munge:munge /run/munge
mount --bind {folder}/etc /etc/slurm
mount --bind {folder}/hosts /etc/hosts
setpriv --reuid munge --regid munge --init-groups munged --key-file {munge}/key --seed-file {munge}/seed \
    --log-file {munge}/log --pid-file {munge}/pid
slurmctld -L {folder}/slurmctld.log
for node in {nodes}; do slurmd -N $node -L {folder}/$node.log; done
exec cat > /dev/null
"""


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        pid: Id of the first process in its namespaces.
        folder: Folder of its logs.
    """

    pid: int
    folder: Path

    def inside(self, cwd: Path) -> list[str]:
        """Return the prefix that runs a command line on the cluster's login node, in the folder `cwd`."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", f"--wdns={cwd}", "--"]

    def run(self, *command: str) -> str:
        """Run a SLURM command and return its output."""
        done = subprocess.run([*self.inside(Path("/")), *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def logs(self) -> str:
        """Return the last lines of its servers' logs."""
        return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))


def _missing() -> str | None:
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed: Debian's slurm-wlm, munge and util-linux run the cluster"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"]).returncode:
        return "the cluster needs root and namespaces"
    return None


@contextmanager
def run_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster and end it; skip if its programs are missing, unless CI is set: then fail."""
    if reason := _missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    host, munge = socket.gethostname().partition(".")[0], folder / "munge"
    for name in ("etc", "state", "munge", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    text = "".join(NODE.format(name=node, host=host, port=free_port()) for node in NODES)
    text += CONFIGURATION.format(host=host, port=free_port(), folder=folder, nodes=",".join(NODES))
    (folder / "etc" / "slurm.conf").write_text(text)
    (folder / "hosts").write_text(f"127.0.0.1 localhost {host} {' '.join(NODES)}\n")
    device = folder / "gpu"
    os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # /dev/null by another name
    (folder / "etc" / "gres.conf").write_text(f"Name=gpu File={device}\n")
    (munge / "key").write_bytes(os.urandom(128))
    for path in (munge, munge / "key"):
        shutil.chown(path, "munge", "munge")
        path.chmod(0o700 if path.is_dir() else 0o400)
    for parent in munge.parents:  # munge is another user
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    script = START.format(folder=folder, munge=munge, nodes=" ".join(NODES))
    options = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = ["unshare", *options, "sh", "-ec", script]  # ends with its input, so with the tests, even if killed
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        yield _wait(process, folder)
    finally:
        process.communicate()


def _wait(process: subprocess.Popen[bytes], folder: Path) -> Cluster:
    """Wait until all nodes are idle."""
    end = time.monotonic() + 60
    cluster = Cluster(0, folder)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.5)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if not children:
            continue
        cluster.pid = int(children[0])
        command = [*cluster.inside(Path("/")), "sinfo", "--noheader", "--Node", "--format", "%T"]
        states = subprocess.run(command, capture_output=True, text=True).stdout.split()
        if states == ["idle"] * len(NODES):
            return cluster
    raise RuntimeError(f"the cluster did not start:\n{cluster.logs()}")
