"""What the app asks of the backend, and what can go wrong then. Nothing in here knows of Streamlit."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from urllib3.exceptions import ReadTimeoutError

HEALTH_SECONDS = 3.0
"""The page waits for this answer: a backend that takes longer is of no use."""


@dataclass
class BackendError(Exception):
    """``renew``: the same request again would only tell of the same failure, so another one is needed."""

    title: str
    cause: str
    solution: str
    renew: bool = False


def cannot_connect(url: str) -> BackendError:
    return BackendError("Connection Error", f"Cannot connect to backend at {url}.", "Start backend: `./scripts/run.sh`")


def too_slow(seconds: float) -> BackendError:
    cause = f"The backend has said nothing for {seconds:g} seconds."
    return BackendError("Timeout Error", cause, "Increase REQUEST_TIMEOUT, or retry to wait for the same answer.")


def failed(status: int | None, detail: str) -> BackendError:
    title = "Backend error" if status is None else f"Backend error ({status})"
    if status is not None and status < 500:
        return BackendError(title, detail, "Ask in another way.", renew=True)
    return BackendError(title, detail, "Check backend logs & API key.", renew=True)


def cut_off() -> BackendError:
    return BackendError("SSE Stream Error", "The stream broke off.", "Retry or disable streaming.")


def malformed() -> BackendError:
    return BackendError("Invalid JSON", "The backend's response cannot be read.", "Check backend response format.")


@dataclass(frozen=True)
class Record:
    """One Server-Sent Event. ``data`` is None where it only moves the cursor."""

    event: str | None
    data: str | None
    retry: str | None


class Backend:
    """``timeout`` is in seconds; all methods but :meth:`healthy` raise :class:`BackendError`."""

    def __init__(self, session: requests.Session, url: str, timeout: float) -> None:
        self._session = session
        self._url = url
        self._timeout = timeout

    def healthy(self) -> bool:
        try:
            return self._session.get(f"{self._url}/health", timeout=HEALTH_SECONDS).status_code == 200
        except requests.RequestException:
            return False

    def ask(self, prompt: str, request_id: str) -> str:
        """The whole answer. The same request id again gives the same answer, or waits for it."""
        with self._post("/query", {"prompt": prompt, "request_id": request_id}) as response:
            try:
                answer = response.json()["answer"]
            except (requests.JSONDecodeError, KeyError, TypeError) as error:
                raise malformed() from error
        return str(answer)

    def stream(self, prompt: str, request_id: str, on_start: Callable[[str], None]) -> Iterator[str]:
        """The pieces of the answer. The same request id again gives them all again, and goes on.

        ``on_start`` is told the run's id, with which it can be stopped.
        """
        with self._post("/query/stream", {"prompt": prompt, "request_id": request_id}, stream=True) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                raise malformed()
            on_start(response.headers.get("X-Run-Id", ""))
            for record in self._records(response):
                match record:
                    case Record(event=None, data=str(text)):
                        yield text
                    case Record(event="run.cancelled"):
                        return
                    case Record(event="run.failed", data=str(data)):
                        raise failed(None, str(json.loads(data)["message"]))
                    case Record(event="run.interrupted"):
                        raise failed(None, "The answer was interrupted.")
                    case Record(event=str()) | Record(retry=str()):
                        raise cut_off()  # the answer goes on, but not in this stream

    def stop(self, run_id: str) -> None:
        with self._post(f"/runs/{run_id}/cancel", None):
            pass

    @contextmanager
    def _post(self, path: str, body: object, *, stream: bool = False) -> Iterator[requests.Response]:
        with self._errors():
            response = self._session.post(f"{self._url}{path}", json=body, stream=stream, timeout=self._timeout)
            with response:
                if not response.ok:
                    raise failed(response.status_code, _detail(response))
                yield response

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except requests.Timeout as error:
            raise too_slow(self._timeout) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise cut_off() from error
        except requests.ConnectionError as error:
            # requests has no exception of its own for a stream that falls silent.
            if isinstance(error.args[0], ReadTimeoutError):
                raise too_slow(self._timeout) from error
            raise cannot_connect(self._url) from error
        except requests.RequestException as error:
            raise cannot_connect(self._url) from error  # what BACKEND_URL says is no address

    def _records(self, response: requests.Response) -> Iterator[Record]:
        """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
        fields: dict[str, list[str]] = {}
        heard = time.monotonic()
        for line in response.iter_lines():
            if time.monotonic() - heard > self._timeout:
                raise too_slow(self._timeout)  # the connection is kept open by comments, and nothing is said on it
            name, _, value = line.decode(errors="replace").partition(":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(" "))
            elif not line and fields:
                heard = time.monotonic()
                data = "\n".join(fields["data"]) if "data" in fields else None
                yield Record(fields.get("event", [None])[-1], data, fields.get("retry", [None])[-1])
                fields = {}


def _detail(response: requests.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        return "LLM processing failed." if response.status_code >= 500 else "The backend has refused the request."
