"""A site outside, with and without TLS: echoes what is posted, with the client's name; serves files.

Arguments: address, port of TLS, port without, folder of site.crt, site.key and what is served.
"""

import functools
import http.server
import ssl
import sys
import threading

address, tls_port, plain_port, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


class Site(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"{self.headers['User-Agent']} says ".encode() + posted
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(port, context):
    server = http.server.ThreadingHTTPServer((address, port), functools.partial(Site, directory=folder))
    if context:
        # Each connection's handshake belongs to its own thread.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(f"{folder}/site.crt", f"{folder}/site.key")
threading.Thread(target=serve, args=(plain_port, None), daemon=True).start()
serve(tls_port, context)
