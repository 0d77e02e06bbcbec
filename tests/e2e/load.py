"""Asks the API again and again until its input ends, then prints what came of it as JSON.

Bounded: one request at a time, at most RATE a second, each with its own connection, TLS handshake
and path (the API takes a signature once).
"""

import json
import os
import select
import sys
import time
import urllib.error
import urllib.request

RATE = 40

done, failures = 0, []
headers = {"Authorization": "Bearer " + os.environ["USER_JWT"]}
print("started", flush=True)
while not select.select([sys.stdin], [], [], 1 / RATE)[0]:
    done += 1
    url = f"https://api.data.local/graphql?n={os.getpid()}-{time.time_ns()}"
    began = time.time()
    try:
        request = urllib.request.Request(url, b"query=x", headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()
    except urllib.error.HTTPError as refused:
        failures.append([began, f"{refused.code} {refused.read().decode()}"])
    except OSError as error:
        failures.append([began, str(error)])
print(json.dumps({"done": done, "failures": failures}))
