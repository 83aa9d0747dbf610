#!/usr/bin/env python3
"""An HTTP/1.1 server for runs and tests: IPv4 and IPv6, one thread per client.

GET serves the files of a folder, /echo tells the client's address as the
server sees it. POST and PUT answer with the SHA-256 of what was sent.
"""
import argparse
import hashlib
import http.server
import os
import socket


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root = "."

    def do_GET(self):
        if self.path == "/echo":
            address = self.client_address[0].removeprefix("::ffff:")
            return self.answer(200, f"{address}\n".encode())
        # Only plain names in one folder: no path to escape by.
        path = os.path.join(self.root, os.path.basename(self.path))
        try:
            file = open(path, "rb")
        except OSError:
            return self.answer(404, b"no such file\n")
        with file:
            size = os.fstat(file.fileno()).st_size
            self.head(200, size)
            self.wfile.flush()
            if size:
                self.connection.sendfile(file, count=size)

    def do_POST(self):
        # curl waits a second for this before it sends a big body.
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left > 0:
            data = self.rfile.read(min(left, 1 << 18))
            if not data:
                return
            digest.update(data)
            left -= len(data)
        self.answer(200, f"{digest.hexdigest()}\n".encode())

    do_PUT = do_POST

    def handle_expect_100(self):
        return True  # do_POST does it

    def head(self, status, length):
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status, body):
        self.head(status, len(body))
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024
    daemon_threads = True

    def server_bind(self):
        # One socket for both families.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "srv", self.server_address[1]

    def handle_error(self, request, client_address):
        pass  # clients that go away are part of the game


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--root", default=".", help="the folder to serve")
    args = parser.parse_args()
    Handler.root = args.root
    Server(("::", args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
