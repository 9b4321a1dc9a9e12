"""A web server on loopback that hands out the files of a folder in ranges, and whose line can be cut after so many bytes."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ParquetServer(ThreadingHTTPServer):
    """`left`: bytes of bodies until every connection is cut in the middle and no new one is answered; None: never."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.left: int | None = None
        self.sent = self.refused = 0
        self.lock = threading.Lock()

    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.server_port}/{path.name}" for path in sorted(self.folder.glob("*.parquet"))]

    def handle_error(self, request, client_address) -> None:
        """A cut line is wanted here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        if self.server.left is not None and self.server.left <= 0:
            self.server.refused += 1
            self.close_connection = True
            return
        data = (self.server.folder / Path(self.path).name).read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(found[1]), int(found[2] or len(data) - 1) + 1) if found else (0, len(data))
        part = data[begin : min(end, len(data))]
        self.send_response(206 if found else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if found:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        with self.server.lock:
            given = len(part) if self.server.left is None else min(len(part), self.server.left)
            self.server.sent += given
            if self.server.left is not None:
                self.server.left -= given
        self.wfile.write(part[:given])
        if given < len(part):
            self.close_connection = True

    def log_message(self, *words) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path):
    with ParquetServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
