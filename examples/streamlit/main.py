"""A chat page for Parley's /query and /query/stream: ./run.sh starts it."""

import logging
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import requests
import streamlit as st
from backend import Backend, BackendError
from dotenv import load_dotenv
from streamlit.delta_generator import DeltaGenerator

load_dotenv()
BACKEND_URL = os.environ.get("BACKEND_URL", "http://localhost:8000").rstrip("/")
USE_STREAMING = os.environ.get("USE_STREAMING", "false").lower() in ("true", "1", "yes")
REQUEST_TIMEOUT = float(os.environ.get("REQUEST_TIMEOUT", "30"))

HEALTH_EVERY = 5.0
"""Seconds between two looks at the backend."""

SHOWN_MESSAGES = 50
"""A page with more of them gets slow; older ones are shown when asked for."""

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("frontend")


@dataclass
class Question:
    """What is being asked. Streamlit runs the page anew at every click, also in the middle of an answer: the request
    id lets the next run of the page go on with the same answer instead of asking for another one."""

    prompt: str
    streaming: bool
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    run_id: str = ""
    text: str = ""
    error: BackendError | None = None


@st.cache_resource
def http() -> requests.Session:
    """One pool of connections for all pages. It lets nothing from the environment come between it and the backend."""
    session = requests.Session()
    session.trust_env = False
    return session


def now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


def begin() -> None:
    st.session_state.session_id = str(uuid.uuid4())
    st.session_state.messages = []
    st.session_state.question = None
    st.session_state.started = time.monotonic()
    st.session_state.all_shown = False


def backend() -> Backend:
    return Backend(http(), BACKEND_URL, st.session_state.timeout)


def stop() -> None:
    # If that fails, the page shows why when it goes on with the answer, as it does next.
    with suppress(BackendError):
        backend().stop(st.session_state.question.run_id)


def retry() -> None:
    question = st.session_state.question
    again = Question(question.prompt, st.session_state.streaming)
    if not question.error.renew:
        again.request_id = question.request_id
    st.session_state.question = again


def show_all() -> None:
    st.session_state.all_shown = True


@st.fragment(run_every=HEALTH_EVERY)
def status() -> None:
    if Backend(http(), BACKEND_URL, HEALTH_EVERY).healthy():
        st.badge("Connected", icon=":material/check_circle:", color="green")
    else:
        st.badge("Unreachable", icon=":material/error:", color="red")
        st.caption(f"Cannot connect to backend at {BACKEND_URL}")


@st.fragment(run_every=1.0)
def duration() -> None:
    minutes, seconds = divmod(int(time.monotonic() - st.session_state.started), 60)
    st.caption(f"{len(st.session_state.messages)} messages · {minutes}:{seconds:02} min")


def sidebar() -> None:
    with st.sidebar:
        st.header("Parley")
        status()
        st.toggle("Stream answers", USE_STREAMING, key="streaming", help="Show an answer while it is being written.")
        st.number_input(
            "Request timeout (seconds)", min_value=1.0, value=max(1.0, REQUEST_TIMEOUT), step=5.0, key="timeout"
        )
        st.button("New conversation", on_click=begin, width="stretch")
        duration()
        st.caption(f"Session {st.session_state.session_id}")


def answer_text(text: str) -> str:
    """Markdown without images: a browser would ask for one at whatever address the model has made up."""
    return text.replace("![", "!\\[")


def history() -> None:
    messages = st.session_state.messages
    hidden = 0 if st.session_state.all_shown else max(0, len(messages) - SHOWN_MESSAGES)
    if hidden:
        st.button(f"Show {hidden} earlier messages", on_click=show_all)
    for message in messages[hidden:]:
        with st.chat_message(message["role"]):
            if message["role"] == "user":
                st.text(message["content"])
            else:
                st.markdown(answer_text(message["content"]))
            st.caption(message["timestamp"])


def answer(question: Question) -> None:
    """Ask, show the answer as it comes, and put it into the history."""
    with st.chat_message("assistant"):
        shown = st.empty()
        try:
            if question.streaming:
                stream_into(shown, question)
            else:
                with shown, st.spinner("Waiting for the answer…"):
                    question.text = backend().ask(question.prompt, question.request_id)
        except BackendError as error:
            logger.warning("%s: %s", error.title, error.cause)
            question.error = error
        else:
            said = {"role": "assistant", "content": question.text, "timestamp": now()}
            st.session_state.messages.append(said)
            st.session_state.question = None
    st.rerun()


def stream_into(shown: DeltaGenerator, question: Question) -> None:
    stopping = st.empty()

    def started(run_id: str) -> None:
        question.run_id = run_id
        stopping.button("Stop", icon=":material/stop_circle:", on_click=stop)

    with shown, st.spinner("Waiting for the first word…"):
        pieces = backend().stream(question.prompt, question.request_id, started)
        question.text = next(pieces, "")
    shown.markdown(answer_text(question.text))
    for piece in pieces:
        question.text += piece
        shown.markdown(answer_text(question.text))


def failure(question: Question, error: BackendError) -> None:
    with st.chat_message("assistant"):
        if question.text:
            st.markdown(answer_text(question.text))
        st.error(f"**{error.title}.** {answer_text(error.cause)}  \n{error.solution}", icon=":material/error:")
        st.button("Retry", icon=":material/refresh:", on_click=retry)


def main() -> None:
    st.set_page_config(page_title="Chat")
    if "messages" not in st.session_state:
        begin()
    sidebar()
    st.title("Chat")
    prompt = st.chat_input("Ask anything")
    if prompt:
        st.session_state.messages.append({"role": "user", "content": prompt, "timestamp": now()})
        st.session_state.question = Question(prompt, st.session_state.streaming)
        logger.info("a question of %d characters", len(prompt))
    history()
    question = st.session_state.question
    if question is not None and question.error is None:
        # The run of the page before this one may still wait for a word in its thread: it keeps the old object.
        st.session_state.question = replace(question, text="")
        answer(st.session_state.question)
    elif question is not None:
        failure(question, question.error)


main()
