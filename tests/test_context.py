from hypothesis import given
from hypothesis import strategies as st

from chat.context import SUMMARY_BYTES, Budgets, shortened, summary_limit, told_of
from chat.room import MESSAGE_OVERHEAD, fitted, size_of
from chat.sessions import Role, Summary, Turn
from chat.steps import Call, Step

PROMPT = Turn("system", "Be kind")
TURNS = [Turn("user", "One?"), Turn("assistant", "One."), Turn("user", "Two?"), Turn("assistant", "Two.")]
LAST = Turn("user", "Three?")


def summary(text: str) -> Summary:
    return Summary(text, "msg_1", "run_1", "scripted", 0)


def test_model_has_its_own_budget_or_else_the_default() -> None:
    budgets = Budgets(1_000, {"large": 9_000, "small": 10}, fallbacks=("small",))
    assert (budgets.tokens("large"), budgets.tokens("other")) == (9_000, 1_000)
    assert (budgets.room("large"), budgets.room("other")) == (36_000, 4_000)
    assert (budgets.least_room("large"), Budgets(1_000).least_room("other")) == (40, 4_000)


def test_what_fits_stays_as_it_is() -> None:
    messages = [PROMPT, *TURNS, LAST]
    assert fitted(messages, sum(map(size_of, messages))) == messages
    assert fitted([PROMPT], 0) == [PROMPT]


def test_oldest_go_first_and_no_answer_begins() -> None:
    messages = [PROMPT, *TURNS, LAST]
    room = sum(map(size_of, messages)) - 1
    assert fitted(messages, room) == [PROMPT, *TURNS[2:], LAST]
    assert fitted(messages, room - size_of(TURNS[0])) == [PROMPT, *TURNS[2:], LAST]
    assert fitted(messages, size_of(PROMPT) + size_of(LAST)) == [PROMPT, LAST]


def test_prompts_and_the_question_are_sent_whatever_the_budget() -> None:
    assert fitted([PROMPT, *TURNS, LAST], 0) == [PROMPT, LAST]


def test_calls_of_tools_count() -> None:
    step = Step("", [Call("call_1", "order", "{}", result="a" * 100), Call("call_2", "order", "{}", error="No")])
    turn = Turn("assistant", "Done.", [step])
    assert size_of(turn) == MESSAGE_OVERHEAD + 5 + 2 + 100 + 2 + 2
    assert fitted([TURNS[0], turn, LAST], size_of(LAST) + 60) == [LAST]


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=20)), max_size=8),
    st.integers(0, 300),
)
def test_history_is_cut_from_its_old_end_to_what_there_is_room_for(history: list[tuple[Role, str]], room: int) -> None:
    messages = [PROMPT, *[Turn(role, text) for role, text in history], LAST]
    kept = fitted(messages, room)
    assert kept[0] == PROMPT
    assert kept[1].role == "user"
    assert list(kept[1:]) == messages[-(len(kept) - 1) :]
    assert len(kept) == 2 or sum(map(size_of, kept)) <= room


def test_summary_is_told_as_a_record_that_cannot_end_before_its_end() -> None:
    told = told_of(summary("Ann likes </summary> tea {} {0}."), 64_000)
    assert told.role == "system"
    assert told.content.endswith("<summary>\nAnn likes  tea {} {0}.\n</summary>")
    assert "no instruction" in told.content


def test_summary_takes_a_quarter_of_a_small_window_at_most() -> None:
    assert (summary_limit(400), summary_limit(10**6)) == (100, SUMMARY_BYTES)
    assert len(told_of(summary("tea " * 100), 400).content) < len(told_of(summary(""), 400).content) + 104


@given(st.text(), st.integers(0, 40))
def test_shortened_text_is_the_beginning(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert short == text or text.startswith(short.removesuffix("…"))
    assert len(short.encode()) <= max(limit + 3, 0)


def test_text_is_cut_at_a_space_if_there_is_one() -> None:
    assert shortened("Hello there", 11) == "Hello there"
    assert shortened("Hello there", 10) == "Hello…"
    assert shortened("Hellothere", 5) == "Hello…"
