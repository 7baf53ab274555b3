"""A model behind an OpenAI-compatible API. The only file that knows the OpenAI SDK; it and the tap, what lies below.

The SDK builds and sends the request; the answer is read as raw bytes. The SDK's own stream costs ten times as much
a chunk, has no limits, and ends normally when the upstream's stream is broken.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from email.utils import mktime_tz, parsedate_tz
from typing import TypeAlias

import aiohttp
import httpx2
from openai import APIConnectionError, AsyncOpenAI, DefaultAioHttpClient, Omit, OpenAIError, omit

from chat.errors import ModelError
from chat.messages import messages_of, tool_of
from chat.ports import Hear, ModelRequest, Part
from chat.providers import KEYLESS, NO_PLACEHOLDERS, Placeholders
from chat.silence import OverdueError, SilenceLimit
from chat.tap import Lingering, Listen, Tap
from chat.upstream import CompletionDecoder, error_label
from chat.vectors import Vector, vectors_in

FINISH_GRACE = 2.0
"""Seconds that usage and end mark may take once the finish reason is there: some servers send neither and keep
the connection open."""

MAX_ERROR_BYTES = 16 * 1024
"""How far the body of an error is read, for the sake of its code."""

MAX_VECTORS_BYTES = 64 * 2**20
"""How far an answer with embeddings is read: a batch has less than a megabyte in base64, and five as numbers."""

ERROR_BODY_TIMEOUT = 2.0
"""Seconds that the body of an error may take."""

# Below the 5 s after which uvicorn, and so vLLM and LiteLLM, close an idle connection: a request should not go
# out on one that is just being closed.
_KEEPALIVE = 4.0

# A response that breaks. The SDK's aiohttp transport translates most errors, not all; and both libraries below
# raise RuntimeError where a connection or a client is closed already.
_BROKEN = (httpx2.HTTPError, aiohttp.ClientError, OSError, RuntimeError)

_Read: TypeAlias = Callable[[], Awaitable[Sequence[Part]]]
"""Waits for more of the response; behind its end, for what that completes."""

_log = logging.getLogger(__name__)


class OpenAIModel:
    """Asks ``{base_url}/chat/completions``, and only once: whether to ask again is the engine's to decide.

    A request that names no model is for the one called ``name``; for the log, it stands for all that are asked here.
    ``connect_timeout`` is for name look-up, connection and TLS together; ``first_timeout`` is the longest wait for
    the first part of an answer, ``silence_timeout`` if None; and that is the longest one between two parts. All in
    seconds. ``placeholders`` are what the server insists on. Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        api_key: str,
        connect_timeout: float,
        silence_timeout: float,
        first_timeout: float | None = None,
        placeholders: Placeholders = NO_PLACEHOLDERS,
    ) -> None:
        self.name = name
        self._placeholders = placeholders
        self._first_timeout = first_timeout or silence_timeout
        self._silence_timeout = silence_timeout
        self._lingering = Lingering()
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or KEYLESS,
            max_retries=0,
            # No read timeout: any byte starts it anew, so that comments could keep a dead stream open for ever.
            timeout=httpx2.Timeout(None, connect=connect_timeout, pool=connect_timeout),
            http_client=DefaultAioHttpClient(
                # 0 is aiohttp's "no limit"; None would be its default of 100, and the 101st stream would wait.
                # How many there may be is for the engine to say.
                limits=httpx2.Limits(max_connections=0, keepalive_expiry=_KEEPALIVE),
                # A prompt goes to the address that was configured and nowhere else.
                follow_redirects=False,
                # A compressor holds tokens back until it has a block of them.
                headers={"Accept-Encoding": "identity"},
                # Before the SDK sees the response: it would read an error's body to the end, wherever that is.
                event_hooks={"response": [self._admit]},
            ),
        )

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        """What each read of the upstream brought; see :class:`chat.ports.ChatModel`."""
        decoder = CompletionDecoder(taken=request.taken)
        parts: Sequence[Part] = ()
        cause = ""
        async with AsyncExitStack() as stack:
            silence = SilenceLimit(self._first_timeout, self._silence_timeout)
            stack.callback(silence.close)
            response = await self._open(request, silence)
            stack.push_async_callback(self._leave, response, decoder)
            short = _Shortcut(request.hear, decoder, silence)
            read = await _reads(response, decoder, short.offer, stack)
            while not decoder.done:
                try:
                    with silence:
                        parts = await read()
                except OverdueError:
                    if not decoder.ending:
                        raise self._failure(_timeout(), "silence") from None
                    parts = decoder.finish()
                except _BROKEN as error:
                    parts, cause = decoder.finish(), _names(error)
                if decoder.ending:
                    silence.shorten(FINISH_GRACE)
                if parts and not decoder.done:
                    yield parts
                    silence.heard()
                    short.open = True
        # The upstream is left by now, however long the reader takes over the last parts.
        if parts:
            yield parts
        if decoder.failure is not None:
            raise self._failure(decoder.failure, cause or decoder.label or decoder.failure.message)

    async def close(self) -> None:
        """Close all connections, also those of streams that are still read."""
        self._lingering.close()
        await self._client.close()

    async def _open(self, request: ModelRequest, silence: SilenceLimit) -> httpx2.Response:
        """Send the request and wait for the head of the response."""
        body: dict[str, object] = {
            **request.options,
            "model": request.model or self.name,
            "messages": messages_of(request, self._placeholders),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = [tool_of(spec) for spec in request.tools]
        try:
            with silence:
                # What `chat.completions.create` ends in. That one walks through the body with its types in hand before:
                # 0.4 ms of the event loop, and 0.2 ms more for each message.
                response = await self._client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=body, stream=True, stream_cls=None
                )
        except OverdueError:
            raise self._failure(_timeout(), "silence before the response") from None
        except (APIConnectionError, OSError, RuntimeError) as error:
            raise self._failure(_unreachable(), _names(error)) from None
        except (ValueError, httpx2.InvalidURL) as error:  # a key, an address or a text that cannot be sent
            failure = ModelError("upstream_rejected", "The model cannot be asked like this.", retryable=False)
            raise self._failure(failure, _names(error)) from None
        except (OpenAIError, aiohttp.ClientError) as error:  # what answers does not speak HTTP
            raise self._failure(_unreadable(), _names(error)) from None
        return response

    async def _leave(self, response: httpx2.Response, decoder: CompletionDecoder) -> None:
        """An answer that is whole waits for nothing more, yet its connection may."""
        source = _source(response)
        if source is not None and decoder.done and decoder.failure is None and not source.content.is_eof():
            self._lingering.keep(source)
        else:
            await response.aclose()

    async def _admit(self, response: httpx2.Response) -> None:
        """Turn away every response that is not an event stream."""
        status = response.status_code
        if not response.is_success:
            level = logging.ERROR if status in (401, 403) else logging.WARNING
            cause = f"status {status} {await _label(response)}".rstrip()
            raise self._failure(_refusal(status, response.headers), cause, level)
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in ("text/event-stream", ""):
            raise self._failure(_unreadable(), f"status {status}, not an event stream")

    def _failure(self, error: ModelError, cause: str, level: int = logging.WARNING) -> ModelError:
        return _logged(self.name, error, cause, level)


class OpenAIEmbedder:
    """Asks ``{base_url}/embeddings``, once, for vectors of ``model``; see :class:`chat.embeddings.Embedder`.

    ``dimensions`` is how many numbers they are to have; None leaves that to the model. ``connect_timeout`` is in
    seconds. Belongs to one event loop.
    """

    def __init__(
        self, *, name: str, base_url: str, api_key: str, model: str, dimensions: int | None, connect_timeout: float
    ) -> None:
        self.name = name
        self._model = model
        self._dimensions: int | Omit = omit if dimensions is None else dimensions
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or KEYLESS,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=connect_timeout, pool=connect_timeout),
            http_client=DefaultAioHttpClient(
                limits=httpx2.Limits(max_connections=0, keepalive_expiry=_KEEPALIVE),
                follow_redirects=False,
                event_hooks={"response": [self._admit]},
            ),
        )

    async def embed(self, texts: Sequence[str], seconds: float) -> Sequence[Vector]:
        try:
            async with asyncio.timeout(seconds):
                body = await self._answer(texts)
            return await asyncio.to_thread(vectors_in, body, len(texts))
        except TimeoutError:
            raise self._failure(_timeout(), f"nothing within {seconds} s") from None
        except (APIConnectionError, *_BROKEN) as error:
            raise self._failure(_unreachable(), _names(error)) from None
        except (OpenAIError, httpx2.InvalidURL, ValueError) as error:
            raise self._failure(_unreadable(), _names(error)) from None

    async def close(self) -> None:
        await self._client.close()

    async def _answer(self, texts: Sequence[str]) -> bytes:
        """The body of the answer. Not the SDK's own view of it, for which the whole of any body would be read."""
        body = bytearray()
        # Base64 is a third of what numbers are, and the SDK's default, so that servers know it; for NumPy the SDK looks
        # only where no format is named.
        async with self._client.embeddings.with_streaming_response.create(
            input=list(texts), model=self._model, dimensions=self._dimensions, encoding_format="base64"
        ) as response:
            async for data in response.iter_bytes():
                body += data
                if len(body) > MAX_VECTORS_BYTES:
                    raise ValueError("too long")
        return bytes(body)

    async def _admit(self, response: httpx2.Response) -> None:
        status = response.status_code
        if not response.is_success:
            level = logging.ERROR if status in (401, 403) else logging.WARNING
            cause = f"status {status} {await _label(response)}".rstrip()
            raise self._failure(_refusal(status, response.headers), cause, level)

    def _failure(self, error: ModelError, cause: str, level: int = logging.WARNING) -> ModelError:
        return _logged(self.name, error, cause, level)


class _Shortcut:
    """The way of a read's parts past the stream, ``open`` once the stream has given out some."""

    def __init__(self, hear: Hear | None, decoder: CompletionDecoder, silence: SilenceLimit) -> None:
        self.open = False
        self._hear = hear
        self._decoder = decoder
        self._silence = silence

    def offer(self, parts: Sequence[Part]) -> bool:
        """False if they are to go the long way: nobody wants them here, or the end is near."""
        if parts:
            # In either case: were the wait for them ended after all, in this same turn, they would be lost.
            self._silence.heard()
        if self._hear is None or not self.open or self._decoder.ending or self._decoder.done:
            return False
        return not parts or self._hear(parts)


async def _reads(response: httpx2.Response, decoder: CompletionDecoder, listen: Listen, stack: AsyncExitStack) -> _Read:
    source = _source(response)
    if source is not None and "content-encoding" not in response.headers:
        return Tap(source, decoder, listen).next
    reads = await stack.enter_async_context(aclosing(response.aiter_bytes()))

    async def read() -> Sequence[Part]:
        data = await anext(reads, b"")
        return decoder.feed(data) if data else decoder.finish()

    return read


def _source(response: httpx2.Response) -> aiohttp.ClientResponse | None:
    """The response as aiohttp has it.

    Nothing public leads down to it. Each read comes up from there through five generators, which cost as much as all
    else that is done for a token; should a release move these names, it is read through them.
    """
    source = getattr(getattr(response.stream, "_stream", None), "_aiohttp_response", None)
    return source if isinstance(source, aiohttp.ClientResponse) else None


async def _label(response: httpx2.Response) -> str:
    """The code in the body of an error, if it is there to be found."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_TIMEOUT), aclosing(response.aiter_bytes()) as reads:
            async for data in reads:
                body += data
                if len(body) > MAX_ERROR_BYTES:
                    break
        return error_label(json.loads(body))
    except (*_BROKEN, ValueError, RecursionError):
        return ""


def _refusal(status: int, headers: httpx2.Headers) -> ModelError:
    if status in (401, 403):
        message = "The model's server does not accept this service's credentials."
        return ModelError("upstream_auth", message, retryable=False)
    if status in (408, 409, 429) or status >= 500:
        code = "upstream_rate_limited" if status == 429 else "upstream_unavailable"
        message = "The model is busy." if status == 429 else "The model is not available at the moment."
        wait = retry_after(headers)
        return ModelError(code, message, retryable=True, transient=True, retry_after=wait)
    message = "The model's server rejected the request."
    if status == 404:
        message = "The model or endpoint does not exist there."
    # Another server may have the model, or still some credit; a text that is too long or refused stays so.
    return ModelError("upstream_rejected", message, retryable=False, final=status in (400, 413, 422))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that the upstream asks for, as a number, as a date or in ``retry-after-ms``; None if unclear."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_tz(headers.get("retry-after", ""))
        return None if date is None else max(0.0, mktime_tz(date) - time.time())
    except (ValueError, OverflowError):  # a year 99999
        return None


def _logged(name: str, error: ModelError, cause: str, level: int) -> ModelError:
    """The error, logged in words that quote nobody: no key, no prompt, nothing that the upstream said."""
    _log.log(level, "model %s: %s (%s)", name, error.code, cause)
    return error


def _unreachable() -> ModelError:
    message = "The model's server cannot be reached."
    return ModelError("upstream_unreachable", message, retryable=True, transient=True)


def _timeout() -> ModelError:
    message = "The model did not answer in time."
    return ModelError("upstream_timeout", message, retryable=True, transient=True, taken=True)


def _unreadable() -> ModelError:
    return ModelError("upstream_invalid", "The model's server sent what is not an answer.", retryable=True)


def _names(error: BaseException) -> str:
    """The error's class and the classes of what caused it; their texts quote bodies and addresses."""
    names = [type(error).__name__]
    while error.__cause__ is not None:
        error = error.__cause__
        names.append(type(error).__name__)
    return " from ".join(names)
