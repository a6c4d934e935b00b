"""What a command costs, and what a running process has cost so far."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

LAUNCHER = pathlib.Path(__file__).with_name("launch.py")
# No run takes nearly as long. A tool that hangs must not hold up the others.
TIME_LIMIT_S = 240


class Failed(Exception):
    """A measurement that did not come about: says which and why."""


def start(command, environment, result, log, directory=None):
    """Starts a command under the launcher; `finish` has what it cost."""
    with open(log, "wb") as output:
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(result), *map(str, command)]
        return subprocess.Popen(
            launcher,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            start_new_session=True,
        )


def stop(process):
    """The launcher and whatever it runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(process, command, result, log):
    try:
        process.wait(TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"it did not end within {TIME_LIMIT_S} s: {' '.join(map(str, command))}") from None
    finally:
        stop(process)
    sample = json.loads(pathlib.Path(result).read_text(encoding="utf-8"))
    if sample.pop("status") != 0:
        tail = pathlib.Path(log).read_text(encoding="utf-8", errors="replace")[-2000:]
        raise Failed(f"it failed: {' '.join(map(str, command))}\n{tail}")
    return sample


def run(command, environment, work, directory=None):
    """Runs a command to its end; a command that fails is no measurement."""
    result, log = work / "sample.json", work / "output.log"
    return finish(start(command, environment, result, log, directory), command, result, log)


def child_of(process):
    """The program that a launcher runs."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        children = path.read_text(encoding="ascii").split()
        if children:
            return int(children[0])
    raise Failed("it ended before it could be looked at")


def peak_mib(pid):
    """The most resident memory that a running process had so far."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status).group(1)) / 1024


def cpu_s(pid):
    """User and system time of a process and all its threads, in nanoseconds' resolution."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9
