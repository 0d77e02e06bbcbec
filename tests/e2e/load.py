"""Asks the API from several threads until its input ends; prints each request as a line of JSON.

`load.py THREADS RATE [HOST]`: by TLS to the API, or in plain text to HOST. At most RATE requests a second by each thread, one at a time. Half of the
threads keep a connection for KEEP requests, the others make a new one (name, TCP, TLS) for each.
Each request has a path of its own, as the API takes a signature once. A line holds: when the request
began (monotonic clock), how long it took, its status (0: none), what went wrong, whether the
connection had served before.
"""

import http.client
import json
import os
import select
import ssl
import sys
import threading
import time

KEEP = 20  # requests on one connection
WITHIN = 20  # seconds for one request: all else is a failure
BODY = b"query=%7B+datasets+%7D"
HEADERS = {"Authorization": "Bearer " + os.environ["USER_JWT"],
           "Content-Type": "application/x-www-form-urlencoded"}

ended = threading.Event()
printing = threading.Lock()


def tell(*values):
    with printing:
        print(json.dumps(values), flush=True)


def ask(connection, path):
    """Status and fault of one request."""
    try:
        connection.request("POST", path, BODY, HEADERS)
        response = connection.getresponse()
        answer = response.read()
        fault = "" if response.status == 200 else answer.decode(errors="replace")
        return response.status, fault
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return 0, f"{type(error).__name__}: {error}"


def work(thread, rate, plain):
    keeps = thread % 2 == 0
    if plain:
        connection = http.client.HTTPConnection(plain, timeout=WITHIN)
    else:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection("api.data.local", timeout=WITHIN, context=context)
    number, due = 0, time.monotonic()
    while not ended.wait(max(0, due - time.monotonic())):
        # Late ones are left out, so that a pause is not followed by a burst.
        due = max(due + 1 / rate, time.monotonic())
        number += 1
        reused = connection.sock is not None
        began = time.monotonic()
        status, fault = ask(connection, f"/graphql?load={os.getpid()}-{thread}-{number}-{began}")
        tell(began, time.monotonic() - began, status, fault, reused)
        if not keeps or number % KEEP == 0:
            connection.close()


if __name__ == "__main__":
    threads = [threading.Thread(target=work, args=(thread, float(sys.argv[2]), "".join(sys.argv[3:])))
               for thread in range(int(sys.argv[1]))]
    for one in threads:
        one.start()
    select.select([sys.stdin], [], [])
    ended.set()
    for one in threads:
        one.join()
    print("end", flush=True)
