"""The command line: what each verb prints, and with which exit code it ends."""

import json
import os
import pathlib
import re
import subprocess
import tempfile

from mesh import EXAMPLE, GATEWAY, Mesh, NOTEBOOK, WITHIN, expect, free_port, python

FAULTS, ABSENT = 65, 69  # exit codes of sysexits: EX_DATAERR, EX_UNAVAILABLE
KINDS = ["listeners", "routes", "clusters", "endpoints", "secrets"]

# Four faults in two files; each with its line and column, and what must be said of it.
BAD = {
    "one.yaml": """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: one
  namespace: egress
spec:
  hosts: [one.example]
  ports:
    - {number: 70000, name: https, protocol: HTTPS}
  resolution: DNSS
""",
    "two.yaml": """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: two
  namespace: egress
spec:
  hosts: [two.example]
  http: [{route: [{destination: {host: two.example}}]}]
  exportToo: []
---
apiVersion: networking.istio.io/v1
kind: Gatewey
metadata:
  name: three
""",
}
NAMED = [
    r"one\.yaml:9:\d+: error: ServiceEntry egress/one: .*70000",
    r"one\.yaml:10:\d+: error: ServiceEntry egress/one: .*DNSS",
    r"two\.yaml:9:3: error: VirtualService egress/two: .*exportToo.*did you mean \"exportTo\"",
    r"two\.yaml:12:\d+: error: .*Gatewey",
]


def validate(options):
    """`validate` accepts the example, and names every fault of a bad folder with file, line and column."""
    with tempfile.TemporaryDirectory(prefix="sluis-") as name:
        folder = pathlib.Path(name)
        for file, text in BAD.items():
            (folder / file).write_text(text)
        ask = Ask(options, folder)
        ask.says(0, r"\d+ resources, 0 errors", "validate", "-f", EXAMPLE / "istio", "-f", EXAMPLE / "machine")
        told = ask.says(FAULTS, r"4 errors", "validate", "-f", folder)
        for pattern in NAMED:
            expect(re.search(pattern, told), f"{pattern} is not in\n{told}")
        faults = json.loads(ask.says(FAULTS, r"", "validate", "-f", folder, "-o", "json"))
        lines = sorted((pathlib.Path(one["file"]).name, one["line"]) for one in faults)
        expect(lines == [("one.yaml", 9), ("one.yaml", 10), ("two.yaml", 9), ("two.yaml", 12)], f"{lines}")
        ask.says(FAULTS, r"did you mean", "validate", "-f", folder, "-o", "yaml")
        ask.says(1, r"nowhere", "validate", "-f", folder / "nowhere")
    return told.strip().splitlines()


def without_a_mesh(options):
    """Without a running `sluis up` a verb that needs one says so with exit code 69; wrong usage is 2."""
    with tempfile.TemporaryDirectory(prefix="sluis-") as name:
        ask = Ask(options, pathlib.Path(name))
        state = ["--state-dir", f"{name}/state"]
        needing = [["proxy-status"], *(["proxy-config", kind, GATEWAY] for kind in KINDS),
                   ["proxy", "bootstrap", "--envoy", GATEWAY]]
        for words in needing:
            ask.says(ABSENT, r"sluis up", *words, *state)
        ask.says(ABSENT, r"sluis up", "exec", *state, NOTEBOOK, "--", "true")
        ask.says(2, r"Usage", "no-such-verb")
        ask.says(2, r"required", "up")
        ask.says(2, r"possible values: listeners, routes", "proxy-config", "nothing", GATEWAY)
        ask.says(0, r"sluis up -f", "--help")
        ask.says(0, r"sluis \d+\.\d+\.\d+", "--version")
        for shell in ("bash", "zsh", "fish"):
            ask.says(0, r"proxy-config", "completion", shell)
        script = ask.says(0, r"complete", "completion", "bash")
        (pathlib.Path(name) / "completion").write_text(script)
        words = f"source {name}/completion; COMP_WORDS=(sluis proxy-s); COMP_CWORD=1; _sluis sluis proxy-s sluis"
        told = ask.run(["bash", "-c", f"{words}; echo \"${{COMPREPLY[@]}}\""])
        expect("proxy-status" in told.stdout, f"bash completes: {told.stdout} {told.stderr}")


def of_a_mesh(options):
    """`proxy-status`, `proxy-config`, `logs`, `exec` tell of a running mesh as tables, JSON and YAML."""
    with Mesh(options.bin_dir) as mesh:
        expect(mesh.client().returncode == 0, "no answer")
        ask = Ask(options, mesh.dir, mesh.jail_environment())
        table = ask.says(0, r"^NAME +CLUSTER +CDS +LDS +EDS +RDS +SDS +NDS", "proxy-status")
        expect(re.search(r"^gateway\.egress +.*SYNCED", table, re.M), table)
        ask.says(0, r"spiffe://cluster\.local/ns/team-a/sa/notebook", "ps", "-o", "wide")
        ask.says(0, r"namespace: egress", "proxy-status", "-o", "yaml")
        show_configuration(ask)
        show_secrets(ask)
        ask.says(0, r"POST /graphql HTTP/1\.1\" 200", "logs", GATEWAY)
        bootstrap = json.loads(ask.says(0, r"", "proxy", "bootstrap", "--envoy", GATEWAY))
        expect(bootstrap["node"]["id"].startswith("router~"), f"{bootstrap['node']}")
        name_workloads(ask)
        run_commands(ask, mesh)
        command = ["up", "-f", mesh.manifests, "--state-dir", mesh.state, "--listen", f"127.0.0.1:{free_port()}"]
        ask.says(1, r"another `sluis up`", *command)
        command = ["up", "-f", mesh.manifests, "--state-dir", mesh.dir / "other", "--listen", f"127.0.0.1:{mesh.control}"]
        ask.says(1, r"cannot listen on", *command)
        expect(mesh.client(f"https://api.data.local/graphql?{free_port()}").returncode == 0, "the mesh is disturbed")


def show_configuration(ask):
    """Each kind in each form; what must be in it."""
    cases = [
        ("listeners", GATEWAY, r"SNI: api\.data\.local +Route: "),
        ("listeners", NOTEBOOK, r"SNI: api\.data\.local +Cluster: outbound\|443\|mitm\|istio-egressgateway"),
        ("routes", GATEWAY, r"direct-data-source-through-egress-gateway\.egress"),
        ("clusters", GATEWAY, r"api\.data\.local +443 +- +outbound +STRICT_DNS +originate-tls-for-datasource\.egress"),
        ("clusters", NOTEBOOK, r"BlackHoleCluster"),
        ("endpoints", NOTEBOOK, r":8443 +HEALTHY .*outbound\|443\|mitm\|"),
    ]
    for kind, workload, pattern in cases:
        ask.says(0, pattern, "proxy-config", kind, workload)
        resources = json.loads(ask.says(0, r"", "pc", kind, workload, "-o", "json"))
        names = [one.get("name") or one.get("cluster_name") for one in resources]
        expect(names and all(names), f"{kind} of {workload}: {names}")
        told = ask.says(0, r"", "pc", kind, workload, "-o", "yaml")
        expect(all(name in told for name in names), f"{kind} of {workload} as YAML:\n{told}")


def show_secrets(ask):
    """Certificates with their serial numbers, and never a key."""
    for workload in (GATEWAY, NOTEBOOK):
        table = ask.says(0, r"^RESOURCE NAME +TYPE +STATUS", "proxy-config", "secrets", workload)
        expect(re.search(r"^default .*spiffe://cluster\.local/ns/", table, re.M), table)
        told = ask.says(0, r"serial", "proxy-config", "secrets", workload, "-o", "json")
        default = [one for one in json.loads(told) if one["name"] == "default"]
        expect(len(default) == 1 and re.fullmatch(r"[0-9a-f]{16,}", default[0]["serial"]), f"{default}")
        told += ask.says(0, r"serial", "proxy-config", "secrets", workload, "-o", "yaml")
        expect("PRIVATE" not in told, told)


def name_workloads(ask):
    """A workload is named as NAMESPACE/NAME, NAME.NAMESPACE or NAME -n NAMESPACE; others are unknown."""
    for words in (["egress/gateway"], ["gateway.egress"], ["gateway", "-n", "egress"]):
        ask.says(0, r"outbound\|443", "proxy-config", "clusters", *words, "-o", "json")
    ask.says(1, r"no WorkloadEntry egress/nobody", "proxy-config", "routes", "egress/nobody")
    ask.says(1, r"no WorkloadEntry team-a/nobody", "exec", "team-a/nobody", "--", "true")
    ask.says(1, r"egress/gateway is a gateway", "exec", GATEWAY, "--", "true")
    ask.says(1, r"nobody", "logs", "team-a/nobody")
    ask.says(1, r"no WorkloadEntry egress/nobody", "proxy", "bootstrap", "--envoy", "egress/nobody")


def run_commands(ask, mesh):
    """`exec` gives the command's exit code, its output, and hides the mesh's state."""
    ask.says(7, r"^hello$", "exec", NOTEBOOK, "--", "sh", "-c", "echo hello; exit 7")
    ask.says(127, r"no-such-program", "exec", NOTEBOOK, "--", "no-such-program")
    ask.says(0, r"\Aca-added-1\.pem\nca-added-2\.pem\n(ca-certificates-2\.pem\n)?ca-certificates\.pem\n\Z",
             "exec", NOTEBOOK, "--", "ls", "-A", mesh.state)
    ask.says(0, r"^lo$", "exec", NOTEBOOK, "--", python(), "-c",
             "import socket; print(*(name for _, name in socket.if_nameindex()))")
    ask.says(0, r"^[1-9]\d* ways tried, 0 open$", "probe", NOTEBOOK, "--outside", "198.51.100.10",
             "--outside", "2001:db8::10", "--control", "127.0.0.1")
    told = ask.says(0, r"^200 ", "exec", "--explicit-proxy", NOTEBOOK, "--", python(), EXAMPLE / "client.py",
                    "https://api.data.local/graphql?explicit")
    expect("no jail" in told, told)


class Ask:
    """Runs `sluis` in a directory."""

    def __init__(self, options, folder, environment=None):
        self.program, self.folder = options.bin_dir / "sluis", folder
        self.environment = environment or {"PATH": os.environ["PATH"], "HOME": str(folder)}

    def run(self, command):
        return subprocess.run(command, cwd=self.folder, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN)

    def says(self, code, pattern, *words):
        """Checks exit code and output; gives the output."""
        done = self.run([self.program, *words])
        told = done.stdout if done.returncode == 0 and not done.stderr else done.stdout + done.stderr
        shown = " ".join(str(word) for word in words)
        expect(done.returncode == code, f"sluis {shown} ended with {done.returncode}, not {code}:\n{told}")
        expect(re.search(pattern, told, re.M), f"sluis {shown}: {pattern} is not in\n{told}")
        return told


ALL = [validate, without_a_mesh, of_a_mesh]
