"""Programs that know of no mesh: curl, requests, Node, git, redis-cli, psql; commands and what they are given."""

import contextlib
import json
import os
import pathlib
import pty
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from clients_world import CLIENT, GATEWAY, HOST, World
from mesh import WITHIN, descendants, expect, python, wait_until

REQUESTS = """
import requests
answer = requests.post("https://site.example/echo", data="from requests", timeout=20)
print(answer.status_code, answer.text)
"""
NODE = """
fetch("https://site.example/echo", {method: "POST", body: "from node"})
  .then(async (answer) => console.log(answer.status, await answer.text()))
  .catch((error) => { console.log("failed:", error.cause ?? error); process.exit(1); });
"""
# What each prints when all is well, and how it is called.
PROGRAMS = [
    ("curl", r"^curl/\S+ says from curl 200$",
     ["curl", "-sS", "-m", "20", "-w", " %{http_code}\n", "--data", "from curl", f"https://{HOST}/echo"]),
    ("Python requests", r"^200 python-requests/\S+ says from requests$", [python(), "-c", REQUESTS]),
    ("Node fetch", r"^200 node says from node$", ["node", "-e", NODE]),
    ("git clone", r"^one commit of a repository$",
     ["sh", "-c", f"git clone -q https://{HOST}/repository.git \"$OUT/clone\" && git -C \"$OUT/clone\" log --format=%s"]),
    ("redis-cli by IPv4", r"^OK\nof redis$",
     ["sh", "-c", "redis-cli -h redis.example set key 'of redis' && redis-cli --raw -h 192.0.2.63 get key"]),
    ("redis-cli by IPv6", r"^of redis$", ["redis-cli", "--raw", "-h", "2001:db8::63", "get", "key"]),
    ("psql", r"^42$", ["psql", "-w", "-h", "postgres.example", "-U", "app", "-d", "postgres", "-Atc", "select 6 * 7"]),
]
NEEDED = ["curl", "node", "git", "redis-cli", "redis-server"]


def unmodified_clients(options):
    """curl, requests, Node, git, redis-cli and psql work in the jail, unmodified, through the gateway."""
    with World(options.bin_dir) as world:
        notes = [use(world, *program) for program in programs()]
        for seen in ("POST /echo 200", "GET /repository.git/", "sni=redis.example from=spiffe://cluster.local/ns/apps/sa/client"):
            wait_until(f"{seen} in the gateway's log", lambda seen=seen: seen in world.log(GATEWAY))
        # What was allowed to nobody.
        refused = world.exec(CLIENT, "curl", "-sS", "-m", "20", "https://elsewhere.example/")
        expect(refused.returncode == 6, f"curl of an unknown host: {refused.returncode} {refused.stderr}")
        outside = world.run(["curl", "-sS", "-m", "5", f"https://{HOST}/echo"])
        expect(outside.returncode != 0, "the site has this name outside the mesh too: nothing is proved")
        return [*notes, probed(world)]


def unmodified_clients_by_envoy(options):
    """The same programs in the jail, with real Envoys as sidecar and gateway."""
    with World(options.bin_dir, "envoy", "envoy") as world:
        return [*(use(world, *program) for program in programs()), probed(world)]


def programs():
    missing = [name for name in NEEDED if not shutil.which(name)]
    expect(not missing, f"not installed: {missing} (scripts/setup.sh clients)")
    return [one for one in PROGRAMS if one[0] != "psql" or World.postgres()]


def use(world, name, pattern, command):
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=world.dir / "work") as out:
        done = world.exec(CLIENT, "env", f"OUT={out}", *command)
    told = (done.stdout + done.stderr).strip()
    expect(done.returncode == 0 and re.search(pattern, told, re.M),
           f"{name}: {done.returncode}\n{told}\n{world.log(CLIENT)[-2000:]}\n{world.log(GATEWAY)[-1500:]}")
    return f"{name}: {(time.monotonic() - began) * 1000:.0f} ms"


def probed(world):
    """The prober finds no way out of this very jail."""
    done = world.run([world.sluis, "probe", CLIENT, "--outside", "198.51.100.10", "--outside", "2001:db8::10",
                      "--control", "127.0.0.1"])
    last = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    expect(done.returncode == 0 and last.endswith("ways tried, 0 open"), done.stdout + done.stderr)
    return last


def explicit_clients(options):
    """The same programs without a jail: an explicit proxy with a password for each command."""
    with World(options.bin_dir) as world:
        def explicit(*command):
            return world.run([world.sluis, "exec", "--explicit-proxy", CLIENT, "--", *command])

        notes = []
        for name, pattern, command in programs():
            is_new_node = name == "Node fetch" and node_version() >= 24
            if name in ("curl", "Python requests", "git clone") or is_new_node:
                with tempfile.TemporaryDirectory(dir=world.dir / "work") as out:
                    done = explicit("env", f"OUT={out}", *command)
                told = (done.stdout + done.stderr).strip()
                expect(done.returncode == 0 and re.search(pattern, told, re.M), f"{name}: {told}")
                notes.append(name)
        plain = explicit("curl", "-sS", "-m", "20", "--data", "plain", f"http://{HOST}/echo")
        expect(re.search(r"curl/\S+ says plain", plain.stdout), f"{plain}")
        for unknown in ("https://elsewhere.example/", "http://elsewhere.example/"):
            refused = explicit("curl", "-sS", "-m", "20", "-w", "%{http_connect} %{http_code}", "-o", "/dev/null", unknown)
            expect("403" in refused.stdout, f"{unknown}: {refused}")
        # Each command has its own password, which is good while it runs, and needed.
        script = ("echo $HTTPS_PROXY; u=${HTTPS_PROXY#*@}; "
                  f"for p in http://$u http://sluis:wrong@$u; do curl -s -o /dev/null -w '%{{http_connect}}\\n' -x $p https://{HOST}/; done; "
                  f"curl -s -o /dev/null -w '%{{http_code}}\\n' -x http://$u http://{HOST}/echo")
        first, second = (explicit("sh", "-c", script).stdout.split() for _ in range(2))
        expect(first[1:] == second[1:] == ["407", "407", "407"], f"{first} {second}")
        expect(first[0].split("@")[0] != second[0].split("@")[0], "the password is the same for two commands")
        for code, command in ((7, ["sh", "-c", "exit 7"]), (143, ["sh", "-c", "kill -TERM $$"]), (127, ["/no/such"])):
            expect(explicit(*command).returncode == code, f"{command}: {explicit(*command)}")
        left = list((world.state / "workloads" / CLIENT).glob("exec-*"))
        expect(not left, f"left behind: {left}")
        return [", ".join(notes)]


def node_version():
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.strip("v\n").split(".")[0])


def commands_in_the_jail(options):
    """Terminal, signals, folder, variables, files and sockets of a command are as asked; two run at once."""
    with World(options.bin_dir) as world:
        folder_and_streams(world)
        variables(world)
        files_and_sockets(world)
        two_at_once(world)
        signals(world)
        terminal(world)


def shell(world, script, *flags, **environment):
    done = world.run([world.sluis, "exec", *flags, CLIENT, "--", "sh", "-c", script], **environment)
    expect(done.returncode == 0, f"{script}: {done.returncode} {done.stdout} {done.stderr}")
    return done.stdout.strip()


def folder_and_streams(world):
    (world.dir / "sub").mkdir()
    done = subprocess.run([world.sluis, "exec", CLIENT, "--", "sh", "-c", "pwd; cat; echo fault >&2; umask; id -u"],
                          cwd=world.dir / "sub", env=world.jail_environment(), input="given\n", text=True,
                          capture_output=True, timeout=WITHIN)
    lines = done.stdout.split()
    expect(lines[:2] == [str(world.dir / "sub"), "given"] and lines[3] == str(os.geteuid()), f"{done}")
    expect(done.stderr == "fault\n", f"{done}")


def variables(world):
    ask = "echo ${MY_TOKEN-gone} ${DATABASE_URL-gone} ${EDITOR-gone} ${https_proxy-gone} ${GATEWAY_KEY-gone}"
    given = {"MY_TOKEN": "t", "DATABASE_URL": "postgres://u:p@h/d", "EDITOR": "vi", "https_proxy": "http://127.0.0.1:1",
             "GATEWAY_KEY": "k"}
    everything = "t postgres://u:p@h/d vi gone gone"
    expect(shell(world, ask, **given) == everything, shell(world, ask, **given))
    expect(shell(world, ask, "--clean-env", **given) == "gone gone vi gone gone", "clean")
    kept = shell(world, ask, "--clean-env", "--keep-env", "MY_*,GATEWAY_KEY", "--env", "EDITOR=ed", **given)
    expect(kept == "t gone ed gone gone", kept)
    bundle = shell(world, "cat $SSL_CERT_FILE | grep -c BEGIN; cat $NODE_EXTRA_CA_CERTS | grep -c BEGIN; "
                          "env | sed -n 's/=.*ca-certificates.pem$//p' | sort | tr '\\n' ' '")
    lines = bundle.splitlines()
    expect(int(lines[0]) >= 2 and lines[1] == "2", f"the platform's authority and the mesh's: {bundle}")
    for name in ("AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        expect(name in lines[2].split(), f"{name}: {bundle}")


def files_and_sockets(world):
    script = (f"for at in {world.dir} {world.dir}/work; do (echo x >$at/made) 2>/dev/null && echo wrote; done; "
              f"cat {world.dir}/ca/platform.key 2>/dev/null | wc -c; ls {world.dir}/secrets")
    expect(shell(world, script).split() == ["wrote", "0"], shell(world, script))
    call = ("import socket,sys\n"
            "for path in sys.argv[1:]:\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    try: s.connect(path); print('connected')\n"
            "    except OSError as e: print(e.strerror)")
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(listening(world.dir / name)) for name in ("work/agent.sock", "other.sock")]
        done = world.exec(CLIENT, python(), "-c", call, *paths)
    expect(done.stdout.splitlines() == ["connected", "Connection refused"], f"{done}")


@contextlib.contextmanager
def listening(path):
    import socket
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen()
        yield path


def two_at_once(world):
    """Of two commands in one workload, one is killed; the other goes on, and new ones start."""
    ask = f"curl -sS -m 20 --data again https://{HOST}/echo"
    loop = f"echo ready; while read line; do {ask}; echo; done"

    def start():
        process = subprocess.Popen([world.sluis, "exec", CLIENT, "--", "sh", "-c", loop], cwd=world.dir, text=True,
                                   env=world.jail_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        expect(process.stdout.readline() == "ready\n", "the command did not start")
        return process

    def asked(process):
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline()

    first, second = start(), start()
    try:
        for one in (first, second, first):
            expect("says again" in asked(one), "no answer while two run")
        first.kill()
        first.wait()
        expect("says again" in asked(second), "the other command has lost its way")
        expect("says again" in world.exec(CLIENT, "sh", "-c", ask).stdout, "no third command starts")
        expect("says again" in asked(second), "the other command has lost its way")
    finally:
        for one in (first, second):
            one.stdin.close()
            one.kill() if one is first else None
            one.wait(WITHIN)
            one.stdout.close()
    expect(second.returncode == 0, f"{second.returncode}")


PASSED_ON = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH


def heed_signals():
    """For a child: what our caller ignores (under nohup, in a shell's background) a shell could not trap."""
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)


def signals(world):
    for number in PASSED_ON:
        name = number.name.removeprefix("SIG")
        script = f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.02; done"
        process = subprocess.Popen([world.sluis, "exec", CLIENT, "--", "sh", "-c", script], cwd=world.dir, text=True,
                                   env=world.jail_environment(), stdout=subprocess.PIPE, preexec_fn=heed_signals)
        try:
            expect(process.stdout.readline() == "ready\n", name)
            process.send_signal(number)
            expect(process.communicate(timeout=WITHIN)[0] == "got\n" and process.returncode == 9, name)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    for script, code in (("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137), ("exit 255", 255)):
        done = world.exec(CLIENT, "sh", "-c", script)
        expect(done.returncode == code, f"{script}: {done.returncode}")


# Waits for the signal by sigwait: a handler could run before the wait for it begins, or inside the print before that.
LATE = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
print("started", flush=True)
signal.sigwait({signal.SIGTSTP})
time.sleep(0.3)
print("late", flush=True)
os.kill(os.getpid(), signal.SIGTSTP)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
print("goes on", flush=True)
"""


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, world):
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            heed_signals()
            os.chdir(world.dir)
            environment = world.jail_environment() | {"PS1": "outside> ", "TERM": "dumb"}
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self.seen = ""

    def says(self, pattern):
        """Reads until it matches; forgets what was read so far."""
        deadline = time.monotonic() + WITHIN
        while not (found := re.search(pattern, self.seen)):
            expect(time.monotonic() < deadline, f"waited for {pattern!r}; the terminal shows {self.seen!r}")
            if select.select([self.end], [], [], 0.1)[0]:
                self.seen += os.read(self.end, 4096).decode().replace("\r", "")
        self.seen = self.seen[found.end():]
        return found

    def type(self, text):
        os.write(self.end, text.encode())


def terminal(world):
    """Ctrl-C, Ctrl-Z and fg, the size of the window, and a shell with jobs of its own."""
    one = Terminal(world)
    try:
        one.says("outside> $")
        sluis = f"{world.sluis} exec {CLIENT} --"
        one.type("stty rows 33 cols 77\n")
        one.says("outside> $")
        one.type(f"{sluis} sh -c 'test -t 0 && test -t 1 && stty size </dev/tty'; echo code=$?\n")
        one.says(r"33 77\ncode=0\noutside> $")
        one.type(f"{sluis} sh -c 'echo sta''rted; read line'; echo code=$?\n")
        one.says("started\n")
        one.type("\x03")
        one.says(r"code=130\noutside> $")
        one.type(f"{sluis} sh -c 'echo sta''rted; read line; echo got $line; exit 5'; echo code=$?\n")
        one.says("started\n")
        one.type("\x1a")
        one.says(r"Stopped")
        one.says(r"code=148\noutside> $")
        one.type("fg; echo code=$?\n")
        one.says(r"exec")
        one.type("words\n")
        one.says(r"got words\ncode=5\noutside> $")
        # The shell outside waits for a command that takes its time to stop: until then the terminal is the command's.
        (world.dir / "late.py").write_text(LATE)
        one.type(f"{sluis} python3 late.py; echo code=$?\n")
        one.says("started\n")
        one.type("\x1a")
        shown = one.says(r"(?s)(.*)Stopped").group(1)
        expect("late" in shown and "outside>" not in shown, f"the shell outside did not wait: {shown!r}")
        one.says(r"code=148\noutside> $")
        one.type("fg; echo code=$?\n")
        one.says(r"goes on\ncode=0\noutside> $")
        one.type(f"{sluis} bash --norc --noprofile -i\n")
        shown = one.says(r"(?s)(.*)outside> $").group(1)
        expect("no job control" not in shown, shown)
        one.type("PS1='ins''ide> '\n")
        one.says(r"\ninside> $")
        one.type("sh -c 'echo sta''rted; read line'\n")
        one.says("started\n")
        one.type("\x1a")
        one.says(r"Stopped")
        one.says(r"inside> $")
        one.type("fg\n")
        one.says(r"read line'\n")
        one.type("x\n")
        one.says(r"inside> $")
        one.type("exit 3\n")
        one.says(r"exit\noutside> $")
        one.type("echo co''de=$?\n")
        one.says(r"code=3\noutside> $")
    finally:
        for pid in reversed(descendants(one.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(one.pid, 0)
        os.close(one.end)


def clients_of_an_ordinary_user(options):
    """The same programs, commands and probe for an ordinary user, without root."""
    if os.getuid() != 0:
        return ["all scenarios of this run belong to an ordinary user already"]
    user = pwd.getpwnam("nobody")
    here = pathlib.Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="sluis-user-") as name:
        home = pathlib.Path(name)
        # The checkout may lie where others cannot look.
        for program in ("sluis", "sluis-proxy"):
            shutil.copy(options.bin_dir / program, home / program)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(here.parent.parent / "examples", home / "examples", ignore=ignore)
        shutil.copytree(here, home / "tests/e2e", ignore=ignore)
        temporary = home / "tmp"
        temporary.mkdir()
        os.chown(temporary, user.pw_uid, user.pw_gid)
        home.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "HOME": str(temporary), "TMPDIR": str(temporary),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        command = [python(), home / "tests/e2e/clients.py", home]
        done = subprocess.run(command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], env=environment,
                              cwd=temporary, text=True, capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
    expect(done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


ALL = [unmodified_clients, unmodified_clients_by_envoy, explicit_clients, commands_in_the_jail, clients_of_an_ordinary_user]


if __name__ == "__main__":
    import types
    chosen = types.SimpleNamespace(bin_dir=pathlib.Path(sys.argv[1]))
    print(json.dumps([f"user {os.getuid()}", *unmodified_clients(chosen), *(commands_in_the_jail(chosen) or [])]))
