"""From start to ready, and what changing the configuration under load costs.

sluis-proxy and Envoy get their sets by ADS from `crates/proxy/examples/configure.rs`; HAProxy and
nginx read a changed file again when they are told to. The change: a field of every answer.
"""

import dataclasses
import json
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from . import shapes
from .load import open_loop
from .machine import cpu_seconds, ended, free_port, pinned, resident_mib, run_seconds, start, wait

RATE = 4000  # requests in a second, on 64 connections
SECONDS = 4
EVERY = 0.4  # seconds between changes
ALONE = 10  # changes without load, of which the CPU time is taken
CONTROL = "istiod.istio-system.svc"  # the name in its certificate


class NotTaken(RuntimeError):
    """A change was not in force in time."""


@dataclasses.dataclass
class Files:
    """A proxy that reads its file again at a signal."""

    bench: object
    peer: str
    place: object

    def begin(self):
        self.write(0)
        line = [str(part) for part in shapes.command(self.peer, shapes.Shape(version=0), self.place, self.bench.options)]
        if self.peer == "haproxy":
            line[line.index("-db")] = "-W"
        self.process = start(self.bench.options.proxy_core, line, self.bench.log)
        return [self.process]

    def write(self, version):
        shapes.command(self.peer, shapes.Shape(version=version), self.place, self.bench.options)

    def spent(self):
        return sum(cpu_seconds([self.process.pid]))  # of workers that have ended, too

    def change(self, version):
        self.write(version)
        self.process.send_signal(signal.SIGHUP if self.peer == "nginx" else signal.SIGUSR2)


@dataclasses.dataclass
class Ads:
    """A proxy that gets its sets from a control plane."""

    bench: object
    peer: str
    place: object
    routes: int

    def begin(self):
        options, port = self.bench.options, free_port()
        path = self.place.file("dynamic").with_suffix(".yaml")
        path.write_text(json.dumps(dynamic(self.place, port)))
        self.control = subprocess.Popen(pinned(options.client_core, [options.configure, port, self.bench.folder]), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.control.stdout.readline()
        self.tell(0)
        line = shapes.start_command(self.peer, path, self.place, options)
        self.process = start(options.proxy_core, line, self.bench.log)
        self.heard()
        return [self.process, self.control]

    def tell(self, version):
        path = self.place.file("set").with_suffix(".json")
        path.write_text(json.dumps(a_set(self.place, version, self.routes)))
        self.control.stdin.write(f"{path}\n")
        self.control.stdin.flush()

    def heard(self):
        line = self.control.stdout.readline()
        if not line:
            raise NotTaken(f"{self.peer} did not take its configuration")
        return int(line)

    def spent(self):
        return run_seconds([self.process.pid])

    def change(self, version):
        self.tell(version)
        self.heard()


def dynamic(place, port):
    """A bootstrap for one who gets all else from the control plane."""
    ads = {"ads": {}, "resource_api_version": "V3"}
    pair = {"certificate_chain": {"filename": f"{place.folder}/client.pem"},
            "private_key": {"filename": f"{place.folder}/client.key"}}
    name = {"san_type": "DNS", "matcher": {"exact": CONTROL}}
    context = {"trusted_ca": {"filename": f"{place.folder}/ca.pem"}, "match_typed_subject_alt_names": [name]}
    tls = {"name": "tls", "typed_config": shapes.typed("transport_sockets.tls.v3.UpstreamTlsContext", sni=CONTROL, common_tls_context={
        "alpn_protocols": ["h2"], "tls_certificates": [pair], "validation_context": context})}
    cluster = shapes.cluster(shapes.Shape(back="h2c"), dataclasses.replace(place, next_port=port), "xds")
    return {"node": {"id": "bench", "cluster": "bench"},
            "dynamic_resources": {"lds_config": ads, "cds_config": ads, "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}},
            "static_resources": {"clusters": [{**cluster, "transport_socket": tls}]}}


def a_set(place, version, count):
    """All that the proxy should hold."""
    shape = shapes.Shape(version=version, routes=("exact", count) if count > 1 else ())
    made = shapes.bootstrap(shape, place)["static_resources"]
    table = made["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = table.pop("route_config")
    routes["virtual_hosts"][0]["routes"].append(shapes.routes(shapes.Shape())[0])
    table["rds"] = {"route_config_name": routes["name"], "config_source": {"ads": {}, "resource_api_version": "V3"}}
    return {"clusters": made["clusters"], "listeners": made["listeners"], "routes": [routes]}


def version_of(port):
    """What a new connection is answered, or None."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: bench.local\r\nConnection: close\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head and (piece := client.recv(4096)):
                head += piece
    except OSError:
        return None
    for line in head.decode().lower().split("\r\n"):
        if line.startswith("x-version:") and head.startswith(b"HTTP/1.1 200"):
            return int(line.split(":")[1])
    return None


def in_force(proxy, version):
    """Makes a change; gives the milliseconds until a new connection is answered by it."""
    time.sleep(EVERY)
    begin = time.monotonic()
    proxy.change(version)
    while version_of(proxy.place.port) != version:
        if time.monotonic() - begin > 10:
            raise NotTaken(f"version {version} of {proxy.peer}")
    return (time.monotonic() - begin) * 1000


def run(bench, peer, routes):
    """One peer: what starting and changing cost."""
    options = bench.options
    place = shapes.Place(free_port(), bench.stage.port("http"), bench.folder, 0)
    proxy = Files(bench, peer, place) if peer in ("haproxy", "nginx") else Ads(bench, peer, place, routes)
    begin = time.monotonic()
    processes = proxy.begin()
    with ended(*processes):
        wait(processes[0], lambda: version_of(place.port) == 0, f"{peer} for changes", bench.log)
        ready = (time.monotonic() - begin) * 1000
        pids, url = [processes[0].pid], f"http://127.0.0.1:{place.port}/"
        idle = resident_mib(pids[0])
        forces = sorted(in_force(proxy, version) for version in range(1, 6))
        versions = iter(range(6, 1000))
        before = proxy.spent()
        for _ in range(ALONE):
            proxy.change(next(versions))
            time.sleep(EVERY / 2)
        each = (proxy.spent() - before) * 1000 / ALONE
        still = loaded(bench, url, lambda: None)
        moved = loaded(bench, url, lambda: proxy.change(next(versions)))
        changes = next(versions) - 6 - ALONE
        return {"ready_ms": ready, "in_force_ms": forces[len(forces) // 2], "changes": changes,
                "cpu_ms": each, "still_p99": still["p99"], "still_max": still["max"],
                "p99": moved["p99"], "p999": moved["p999"], "max": moved["max"], "failed": moved["errors"], "requests": moved["requests"],
                "reconnects": moved["reconnects"], "idle_mib": idle, "after_mib": resident_mib(pids[0])}


def loaded(bench, url, change):
    """What the generator found while something changes now and then."""
    options = bench.options
    open_loop(options.client_core, options.open_loop, url, 64, RATE, 1, may_fail=True)
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(open_loop, options.client_core, options.open_loop, url, 64, RATE, SECONDS, may_fail=True)
        time.sleep(EVERY)
        while time.monotonic() < end - EVERY:
            due = time.monotonic() + EVERY
            change()
            time.sleep(max(0, due - time.monotonic()))
        return load.result()
