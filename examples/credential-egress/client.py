"""What a data scientist writes: an https URL and a user's token. It knows no key."""

import os
import sys
import urllib.error
import urllib.parse
import urllib.request

url = sys.argv[1] if len(sys.argv) > 1 else "https://api.data.local/graphql"
body = urllib.parse.urlencode({"query": "{ datasets { name rows } }"}).encode()
request = urllib.request.Request(
    url, body, {"Authorization": "Bearer " + os.environ["USER_JWT"]}
)
try:
    with urllib.request.urlopen(request, timeout=10) as response:
        print(response.status, response.read().decode())
except urllib.error.HTTPError as refused:
    sys.exit(f"{refused.code} {refused.read().decode()}")
except urllib.error.URLError as failed:
    sys.exit(f"no answer: {failed.reason}")
