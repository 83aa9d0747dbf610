#!/usr/bin/env python3
"""A stand-in for Control D's API, over real TLS.

    control_d_api.py FOLDER

Writes FOLDER/cert.pem (for 127.0.0.1) and FOLDER/port when it listens. What it
answers is read from FOLDER/answer.json anew for every request: {"status": 200,
"body": {...}}; requests are appended to FOLDER/requests, one JSON object a
line.
"""
import http.server
import json
import pathlib
import ssl
import subprocess
import sys

folder = pathlib.Path(sys.argv[1])


class Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(size).decode()
        with open(folder / "requests", "a", encoding="utf-8") as out:
            out.write(json.dumps({"path": self.path,
                                  "body": json.loads(body)},
                                 sort_keys=True) + "\n")
        answer = json.loads((folder / "answer.json").read_text())
        text = json.dumps(answer["body"]).encode()
        self.send_response(answer["status"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
     "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
     "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
     folder / "key.pem", "-out", folder / "cert.pem"],
    check=True, capture_output=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
(folder / "port.new").write_text(str(server.server_port))
(folder / "port.new").rename(folder / "port")
server.serve_forever()
