"""A SLURM cluster of several machines on this one, for the tests: real daemons, real jobs.

Each machine is a set of namespaces (PIDs, mounts, host name) in which a slurmd runs; all
daemons listen on 127.0.0.1 only, with a munge key, a configuration and a state of their
own in one directory. Every process started here ends with the process that started it.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONTROL = "control"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={control}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
KillWait={kill_wait}
InactiveLimit=0
WaitTime=0
MinJobAge=3600
FirstJobId={first_job}
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
"""

PARTITIONS = """\
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 DefaultTime=5 MaxTime=60 PreemptMode=OFF
PartitionName=low Nodes=ALL PriorityTier=1 MaxTime=60 PreemptMode=REQUEUE
PartitionName=grace Nodes=ALL PriorityTier=1 MaxTime=60 PreemptMode=REQUEUE GraceTime=20
PartitionName=cancel Nodes=ALL PriorityTier=1 MaxTime=60 PreemptMode=CANCEL
PartitionName=high Nodes=ALL PriorityTier=20 MaxTime=60 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can be brought up here, in plain words; None if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"SLURM is not installed here: there is no {', '.join(absent)}"
    if os.geteuid() != 0:
        return "a SLURM cluster of several machines on this one needs root"
    trial = ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        return "this machine does not let root make namespaces, which the nodes live in"
    return None


def _with_parent() -> None:
    """In a new process: end when the one that started it does."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Cluster:
    """Nodes called node1, node2, ... of ``cpus`` pretended CPUs, and one GPU each.

    Args:
        root: a directory of its own, short enough for the name of a socket in it.
    """

    def __init__(self, root: Path, nodes: int, cpus: int, kill_wait: int = 30) -> None:
        assert len(str(root)) < 70, root
        self.root, self.cpus, self._kill_wait = root, cpus, kill_wait
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.conf = root / "slurm.conf"
        self._port = _free_ports(nodes + 11)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Read here, once: scenarios run in threads, beside which pytest changes its variables.
        self._kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}

    # -- up and down ----------------------------------------------------------------------

    def __enter__(self) -> "Cluster":
        for name in ("munge", "state", "spool", "log", "hosts"):
            (self.root / name).mkdir(parents=True)
        self.root.chmod(0o755)
        (self.root / "munge").chmod(0o711)
        self._configure()
        try:
            self._start_munge()
            self.start_controller()
            for node in self.nodes:
                self.boot(node)
            self.wait(lambda: all(self.state(node) == "idle" for node in self.nodes), 60, "idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
        for process in self._processes.values():
            process.wait(20)

    def _configure(self) -> None:
        names = [*self.nodes, CONTROL, "localhost"]
        for own in names:
            lines = [f"127.0.0.1\t{name}\n" for name in dict.fromkeys([own, *names])]
            (self.root / "hosts" / own).write_text("".join(lines))
        key = self.root / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        # Ids that no earlier cluster has used: folders are named by them.
        first = int(time.time()) % 60_000_000 + 1
        text = CONFIGURATION.format(
            control=CONTROL,
            port=self._port,
            root=self.root,
            kill_wait=self._kill_wait,
            first_job=first,
        )
        for number, node in enumerate(self.nodes, start=1):
            (self.root / "spool" / node).mkdir()
            text += (
                f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 "
                f"Port={self._port + 10 + number} Sockets=1 CoresPerSocket={self.cpus} "
                "ThreadsPerCore=1 RealMemory=65536 Gres=gpu:1\n"
            )
        device = self.root / "gpu0"
        device.write_text("")
        (self.root / "gres.conf").write_text(f"Name=gpu File={device}\n")
        self.conf.write_text(text + PARTITIONS)

    def _launch(self, name: str, command: Sequence[str]) -> None:
        with (self.root / "log" / f"{name}.out").open("ab") as stream:
            self._processes[name] = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**self.environ, "PATH": PATH},
                start_new_session=True,
                preexec_fn=_with_parent,
            )

    def _launch_machine(self, name: str, host: str, command: Sequence[str]) -> None:
        inside = [sys.executable, str(Path(__file__).with_name("node.py")), host]
        inside += [str(self.root / "hosts" / host), str(self.root / "log" / f"{name}.out")]
        namespaces = ["--uts", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        unshare = ["unshare", *namespaces, "--propagation", "slave", "--"]
        self._launch(name, [*unshare, *inside, *command])

    def _start_munge(self) -> None:
        place = self.root / "munge"
        files = [f"--{name}-file={place / name}" for name in ("key", "pid", "log", "seed")]
        self._launch("munged", ["munged", "--foreground", f"--socket={place / 'socket'}", *files])
        self.wait((place / "socket").exists, 20, "munge")

    # -- machines -------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Switch the controller's machine on."""
        command = ["slurmctld", "-D", "-f", str(self.conf)]
        self._launch_machine("slurmctld", CONTROL, command)
        # A slurmd that finds no controller tries again only 10 s later.
        self.wait(lambda: _listens(self._port), 30, "slurmctld")

    def stop_controller(self) -> None:
        """Cut the controller's power."""
        self._kill("slurmctld")

    def boot(self, node: str) -> None:
        """Switch a machine on."""
        self._launch_machine(node, node, ["slurmd", "-D", "-N", node, "-f", str(self.conf)])

    def crash(self, node: str) -> None:
        """Cut a machine's power: all that runs there is gone."""
        self._kill(node)

    def kill_slurmd(self, node: str) -> None:
        """End the daemon alone; the machine, and what runs there, live on."""
        init = self._inside(node)
        for pid in _children(init):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "slurmd":
                os.kill(pid, signal.SIGKILL)

    def restart_slurmd(self, node: str) -> None:
        """Start the daemon of a machine that is on."""
        os.kill(self._inside(node), signal.SIGUSR1)

    def _inside(self, name: str) -> int:
        """Process 1 of a machine, by its number here."""
        (init,) = _children(self._processes[name].pid)
        return init

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(20)

    # -- as a user ------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        """Of a user's commands."""
        return {**self._kept, "SLURM_CONF": str(self.conf), "OMP_NUM_THREADS": "1"}

    def run(self, *command: str, check: bool = True) -> str:
        """What a user's command prints."""
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def state(self, node: str) -> str:
        """As sinfo tells it."""
        # Asked for the state alone, sinfo does not keep the nodes apart.
        lines = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)[node]

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Until a condition holds; AssertionError when it takes too long."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if condition():
                    return
            assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
            time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens at."""
    for base in range(17800 + os.getpid() % 50 * 100, 32000, 100):
        if not any(_listens(port) for port in range(base, base + count)):
            return base
    raise OSError("no free ports")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
