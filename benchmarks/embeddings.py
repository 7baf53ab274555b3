"""An OpenAI-compatible ``/embeddings`` with a small model that is in its package: ``python -m benchmarks.embeddings``.

WordLlama (https://github.com/dleemiller/WordLlama) has a vector of 256 numbers for each token, and takes their mean for
a text: in quality far below what is served elsewhere, and here to be had by anybody. Runs in .venv-wordllama.
"""

import argparse
import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import wordllama


class Embeddings(BaseHTTPRequestHandler):
    """``model`` is set before the first request."""

    protocol_version = "HTTP/1.1"
    model: Any

    def do_GET(self) -> None:
        self._answer({"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = [
            {"object": "embedding", "index": place, "embedding": base64.b64encode(vector.tobytes()).decode()}
            for place, vector in enumerate(self.model.embed(asked["input"]))
        ]
        self._answer({"object": "list", "data": data, "model": asked["model"]})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # Both files are in the package; where it looks for the tokenizer by itself is elsewhere.
    Embeddings.model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    ThreadingHTTPServer(("127.0.0.1", arguments.port), Embeddings).serve_forever()


if __name__ == "__main__":
    main()
