"""Processes on their cores, and what they cost: time, memory, system calls."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
READY_WITHIN = 20  # seconds
DESCRIPTORS = 65_536  # ten thousand connections have two ends


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    return ["taskset", "-c", str(core), *map(str, command)] if shutil.which("taskset") else [*map(str, command)]


def tree(pid):
    """The process and its children: nginx does its work in one."""
    pids = [pid]
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += tree(int(child))
    return pids


def cpu_seconds(pids):
    """User and system time so far, of the processes and their children, those that have ended too."""
    user, system = 0, 0
    for one in [child for pid in pids for child in tree(pid)]:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
    return user / TICKS, system / TICKS


def run_seconds(pids):
    """Time on a core so far, to the nanosecond, of the threads that live (proc(5), schedstat)."""
    total = 0
    for one in [child for pid in pids for child in tree(pid)]:
        for task in pathlib.Path(f"/proc/{one}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1e9


def resident_mib(pid):
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total / 1024


def raise_limits():
    """Lets this process and its children have many descriptors: as root as many as are wanted."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for most in (max(DESCRIPTORS, hard), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return


def start(core, command, log):
    """Starts a process on a core; what it says goes to the file."""
    with open(log, "ab") as out:
        return subprocess.Popen(pinned(core, command), stdout=out, stderr=out, start_new_session=True)


def stop(process):
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ended(*processes):
    """Stops the processes when the block ends."""
    try:
        yield
    finally:
        for process in processes:
            stop(process)


def wait(process, is_ready, what, log):
    """Waits until `is_ready`; gives the seconds that took. Ends the run when the process has ended."""
    begin = time.monotonic()
    while time.monotonic() - begin < READY_WITHIN:
        if is_ready():
            return time.monotonic() - begin
        if process.poll() is not None:
            break
        time.sleep(0.001)
    sys.exit(f"{what} is not ready:\n" + pathlib.Path(log).read_text(errors="replace")[-2000:])


@contextlib.contextmanager
def before_others(pids, priority=20):
    """Lets processes run before all others on their core while the block runs (SCHED_FIFO, sched(7))."""
    running = threads(pids)
    for one in running:
        os.sched_setscheduler(one, os.SCHED_FIFO, os.sched_param(priority))
    try:
        yield
    finally:
        for one in running:
            os.sched_setscheduler(one, os.SCHED_OTHER, os.sched_param(0))


def undisturbed(pids):
    """Has processes wait for no housekeeping of the kernel on their core; where they may run all the time, SCHED_FIFO would be throttled."""
    for one in threads(pids):
        with contextlib.suppress(ProcessLookupError):  # one that has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, one, -20)


def threads(pids):
    return [int(task.name) for pid in pids for one in tree(pid) for task in pathlib.Path(f"/proc/{one}/task").iterdir()]


@contextlib.contextmanager
def counted_calls(pids):
    """Counts the system calls of processes and their children while the block runs."""
    tracers = [subprocess.Popen(["strace", "-f", "-c", "-U", "calls,name", "-p", str(one)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
               for pid in pids for one in tree(pid)]
    for tracer in tracers:
        # It has said "attached" once it counts.
        tracer.stderr.readline()
    calls = {}
    try:
        yield calls
    finally:
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)
        for tracer in tracers:
            text = tracer.communicate(timeout=20)[1]
            for count, name in re.findall(r"^\s*(\d+)\s+([a-z_0-9]+)$", text, re.M):
                if name != "total":
                    calls[name] = calls.get(name, 0) + int(count)
