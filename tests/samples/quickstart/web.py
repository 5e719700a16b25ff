"""One page: which release answers, and how far the worker has counted."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kv

RELEASE = os.environ["QUARRY_RELEASE"]


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            return self.answer(200, kv.ask("PING"))
        if self.path != "/":
            return self.answer(404, "There is only one page, and it is /.")
        count = kv.ask("GET", "count") or 0
        self.answer(200, f"Hello from release {RELEASE}. The worker has counted to {count}.")

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("", int(os.environ["PORT"])), Page)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
