"""Serve the page with the headers that threads need: ``python web/serve.py [FOLDER]``."""

from __future__ import annotations

import argparse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Handler", "server_of"]


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, isolated from other origins."""

    extensions_map = {  # noqa: RUF012 - as the class it comes from has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",  # Windows may say otherwise
    }

    def end_headers(self) -> None:
        """Add the headers."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def server_of(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server on this machine alone; port 0 is any free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "dist")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    if not (args.folder / "index.html").is_file():
        parser.error(f"{args.folder} contains no page: build it first (make web)")
    try:
        server = server_of(args.folder, args.port)
    except OSError as error:
        parser.error(f"port {args.port} cannot be used ({error.strerror}): choose another --port")
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C stops it)")
        server.serve_forever()


if __name__ == "__main__":
    main()
