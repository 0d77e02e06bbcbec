#!/usr/bin/env python3
"""The news site: port 8080 redirects to https, port 8443 serves.

`site.py ADDRESS DIR` takes DIR/site.pem and DIR/site.key, and prints a line for each request.
"""

import http.server
import ssl
import sys
import threading

ADDRESS, DIR = sys.argv[1:]
ARTICLE = b"<html>" + b"news " * 200 + b"</html>"


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        is_tls = isinstance(self.connection, ssl.SSLSocket)
        print("https" if is_tls else "http", self.path, flush=True)
        body = ARTICLE if is_tls else b""
        self.send_response(200 if is_tls else 301)
        if not is_tls:
            self.send_header("location", f"https://edition.cnn.com{self.path}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


plain = http.server.ThreadingHTTPServer((ADDRESS, 8080), Site)
secure = http.server.ThreadingHTTPServer((ADDRESS, 8443), Site)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{DIR}/site.pem", f"{DIR}/site.key")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
print("ready", flush=True)
secure.serve_forever()
