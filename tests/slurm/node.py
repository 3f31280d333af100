"""Process 1 of a pretended machine, in namespaces of its own: takes a name, runs a daemon.

    node.py HOSTNAME HOSTS-FILE LOG COMMAND...

It reaps what loses its parent, outlives its daemon, and starts it anew on SIGUSR1. Killing
it is a power cut: the kernel ends everything in its PID namespace.
"""

import contextlib
import os
import signal
import subprocess
import sys


def main(name: str, hosts: str, log: str, *command: str) -> None:
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    subprocess.run(["hostname", name], check=True)
    os.environ["HOSTNAME"] = name
    wanted = [signal.SIGUSR1]

    def again(number: int, _frame: object) -> None:
        wanted.append(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, again)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        if wanted:
            wanted.clear()
            with open(log, "ab") as stream:
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    start_new_session=True,
                    preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
                )
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigtimedwait([], 0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
