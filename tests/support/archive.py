"""An archive of records on the loopback address that misbehaves when told to."""

import hashlib
import json
import re
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RECORD = "4559324"


class Archive(ThreadingHTTPServer):
    """Serves ``files`` of one record; ``faults[name]`` is used up, one entry per request.

    Faults: a status number, or one of ``break`` (half of the body, then the connection ends), ``short`` and
    ``long`` (a complete response of another size), ``corrupt``, ``ignore_range``, ``wrong_range``, ``weak``
    (a weak entity tag).
    """

    daemon_threads = False
    # A test may leave while a kept connection is open.
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.listed = {}  # name -> changes of its entry in the listing
        self.faults = defaultdict(list)
        self.requests = []  # (name, Range, If-Range, status)
        self.encodings = []  # what each request accepts
        self.etag = '"first"'
        self.retry_after = None

    @property
    def api(self):
        return f"http://127.0.0.1:{self.server_address[1]}/api"

    def handle_error(self, request, client_address):
        """Clients that leave early are part of the tests."""

    def content_requests(self, name):
        return [r[1:] for r in self.requests if r[0] == name]

    def listing(self):
        return {"id": int(RECORD), "files": [self.entry(name) for name in self.files]}

    def entry(self, name):
        body = self.files[name]
        entry = {
            "key": name,
            "size": len(body),
            "checksum": "md5:" + hashlib.md5(body).hexdigest(),
            "links": {"self": f"{self.api}/records/{RECORD}/files/{name}/content"},
        }
        return entry | self.listed.get(name, {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.close_connection = True
        self.server.encodings.append(self.headers.get("Accept-Encoding"))
        content = re.fullmatch(rf"/api/records/{RECORD}/files/(.+)/content", self.path)
        if self.path == f"/api/records/{RECORD}":
            self.answer("listing", lambda: json.dumps(self.server.listing()).encode())
        elif content and content[1] in self.server.files:
            self.answer(content[1], lambda: self.server.files[content[1]])
        else:
            self.reply(self.path, 404, b"nothing")

    def answer(self, name, body):
        server = self.server
        fault = server.faults[name].pop(0) if server.faults[name] else None
        if isinstance(fault, int):
            retry = {} if server.retry_after is None else {"Retry-After": server.retry_after}
            return self.reply(name, fault, b"", **retry)
        body = body()
        tag = "W/" + server.etag if fault == "weak" else server.etag
        start, wanted = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", server.etag) == server.etag
        if wanted and same and fault != "ignore_range":
            start = int(wanted[1])
            if start >= len(body):
                return self.reply(name, 416, b"")
        size = len(body)
        body = body[start:]
        if fault == "corrupt":
            body = bytes(len(body))
        if fault == "short":
            body = body[: len(body) // 2]
        if fault == "long":
            body += b"x" * 1000
        headers = {"ETag": tag}
        if start:
            first = start + 1 if fault == "wrong_range" else start
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        sent = len(body) // 2 if fault in ("break", "weak") else len(body)
        return self.reply(name, 206 if start else 200, body, sent, **headers)

    def reply(self, name, status, body, sent=None, **headers):
        self.server.requests.append((name, self.headers.get("Range"), self.headers.get("If-Range"), status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:sent])


@contextmanager
def serve():
    """Run an archive until the block ends."""
    with Archive() as archive:
        thread = threading.Thread(target=archive.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield archive
        finally:
            archive.shutdown()
            thread.join()
