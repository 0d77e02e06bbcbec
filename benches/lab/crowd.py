"""Many connections with little traffic: what a request costs among them. What they hold: idle.py."""

import selectors
import socket
import time

from .load import LoadFailed
from .machine import ended, run_seconds
from .scenarios import Scenario
from .shapes import Shape, connections_max

COUNTS = (1_000, 10_000)
ROUND = 500  # fewer, where the limit of descriptors does not allow as many
RATE = 1000  # requests in a second, in turn over all connections
SECONDS = 4
FROM_ONE_ADDRESS = 5_000  # connections: each address has some 28,000 ports
AT_ONCE = 64
REQUEST = b"GET / HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"
WITHIN = 10  # seconds for an answer
SCENARIO = Scenario("e", "many connections, little traffic", (Shape(connections=10_000),), None)


def counts():
    """How many connections: as many as every proxy can have with the descriptors of this machine."""
    return [min(count, connections_max() // ROUND * ROUND) for count in COUNTS]


def connected(port, count):
    clients = []
    for number in range(count):
        client = socket.socket()
        client.bind((f"127.0.0.{2 + number // FROM_ONE_ADDRESS}", 0))
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        clients.append(client)
    return clients


def ask(clients, rate):
    """One request on each, at most AT_ONCE under way, at a rate or as fast as it goes."""
    waiting, count, begin, number = selectors.DefaultSelector(), len(clients), time.monotonic(), 0
    heard = begin
    while number < count or waiting.get_map():
        now = time.monotonic()
        due = min(count, int((now - begin) * rate) + 1) if rate else count
        while number < due and len(waiting.get_map()) < AT_ONCE:
            clients[number].sendall(REQUEST)
            waiting.register(clients[number], selectors.EVENT_READ)
            number += 1
        pause = begin + number / rate - now if rate and number < count else 1
        for key, _ in waiting.select(max(0, pause)):
            answer, heard = key.fileobj.recv(4096), now
            if not answer.startswith(b"HTTP/1.1 200"):
                raise LoadFailed(f"not answered: {answer[:200]!r}")
            waiting.unregister(key.fileobj)
        if now - heard > WITHIN:
            raise LoadFailed("no answer")
    waiting.close()


def run(bench, peer, count):
    """One peer with so many connections."""
    processes, port, _ = bench.begin(peer, SCENARIO)
    with ended(*processes):
        pids = [process.pid for process in processes]
        clients = []
        try:
            clients = connected(port, count)
            ask(clients, None)
            before = run_seconds(pids)
            asked = [clients[number % count] for number in range(RATE * SECONDS)]
            for at in range(0, len(asked), count):
                ask(asked[at:at + count], RATE)
            spent = run_seconds(pids) - before
        except OSError as error:
            raise LoadFailed(str(error)) from error
        finally:
            for client in clients:
                client.close()
        return {"cpu_us": spent * 1e6 / len(asked)}
