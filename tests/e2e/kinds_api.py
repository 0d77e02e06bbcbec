"""An API that takes credentials of every kind, and a token server beside it: what they were given.

Standard library only. Each request is one JSON line on standard output: its head as it came. `/echo…`
answers with what it received, as debugging pages do; `/token` gives a token.
"""

import argparse
import http.server
import json
import ssl


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode("latin-1")
        head = [[name, value] for name, value in self.headers.items()]
        record = {"method": self.command, "target": self.path, "head": head, "body": body}
        print(json.dumps(record), flush=True)
        path = self.path.split("?")[0]
        if path == "/token":
            answer = {"access_token": self.server.token, "token_type": "Bearer", "expires_in": 3600}
        elif path.startswith("/echo"):
            answer = record
        else:
            answer = {"ok": path}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    for name in ("address", "port", "certificate", "key", "token"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer((options.address, int(options.port)), Handler)
    with open(options.token) as file:
        server.token = file.read()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
