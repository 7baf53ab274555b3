from hypothesis import given
from hypothesis import strategies as st

from chat.ports import ModelRequest
from chat.room import beginning_with_a_question, earlier, fitted_request, shortened
from chat.sessions import Turn
from chat.steps import Call, Step

answers = st.one_of(
    st.builds(lambda text: {"result": text}, st.text(max_size=300)),
    st.builds(lambda text: {"error": text}, st.text(max_size=300)),
    st.just({}),
)
calls = st.builds(lambda answer: Call("1", "f", "{}", **answer), answers)
steps = st.lists(st.builds(Step, st.text(), st.lists(calls, min_size=1, max_size=4)), max_size=4)

NOTE = 50
"""Bytes that a note takes at most: it is there even where nothing else fits."""


def told(call: Call) -> str:
    return call.result if call.result is not None else call.error or ""


def of(found: object) -> list[str]:
    """What the tools have answered, step by step."""
    assert isinstance(found, list | tuple)
    return [told(call) for step in found for call in step.calls]


@given(steps, st.integers(0, 2_000))
def test_answers_of_tools_fit_in_their_room(given: list[Step], room: int) -> None:
    found = shortened(given, room)
    before, after = of(given), of(found)
    assert sum(len(text.encode()) for text in after) <= max(room, 0) + NOTE * len(after)
    if sum(len(text.encode()) for text in before) <= room:
        assert found == given
    longest = max([len(text.encode()) for text in after], default=0)
    for one, other in zip(before, after, strict=True):
        assert one == other or (f"It has {len(one):,} characters" in other and len(one.encode()) + NOTE > longest - 4)
    assert [[call.answered for call in step.calls] for step in found] == [
        [call.answered for call in step.calls] for step in given
    ]


def test_short_answers_stay_whole_and_long_ones_become_equally_long() -> None:
    short, long, longer = (
        Call(name, "f", "{}", text) for name, text in [("1", "ok"), ("2", "x" * 500), ("3", "é" * 900)]
    )
    failed = Call("4", "f", "{}", error="y" * 500)
    found = of(shortened([Step("", [short, long]), Step("", [longer, failed])], 302))
    assert found[0] == "ok"
    assert found[1] == "x" * 70 + "\n[Cut. It has 500 characters.]"
    assert found[2] == "é" * 35 + "\n[Cut. It has 900 characters.]"
    assert found[3].startswith("yyy")
    assert of(shortened([Step("", [long])], 0)) == ["\n[Cut. It has 500 characters.]"]


def test_oldest_turns_make_room_for_the_runs_steps() -> None:
    turns = [Turn("user", "a" * 30), Turn("assistant", "b" * 30), Turn("user", "c" * 30), Turn("assistant", "d" * 30)]
    messages = [Turn("system", "s" * 20), *turns, Turn("user", "now")]

    def kept(budget: int) -> str:
        request = ModelRequest(messages, steps=[Step("t" * 10, [Call("1", "f", "{}", "r" * 20)])])
        return "".join(turn.content[0] for turn in fitted_request(request, budget).messages)

    assert kept(255) == "sabcdn"
    assert kept(254) == "scdn"  # and no answer without its question
    assert kept(163) == "scdn"
    assert kept(162) == "sn"
    assert kept(0) == "sn"


def test_earlier_turn_whose_calls_are_too_long_keeps_its_text_alone() -> None:
    step = Step("", [Call("1", "f", "a" * 100, "r" * 100)])
    assert earlier([step], 200) == [step]
    assert of(earlier([step], 199)) == ["r" * 69 + "\n[Cut. It has 100 characters.]"]
    assert earlier([step], 99) == ()


def test_answer_whose_question_was_cut_off_is_left_out() -> None:
    turns = [Turn("assistant", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d")]
    assert beginning_with_a_question(turns) == turns[2:]
    assert beginning_with_a_question(turns[:2]) == turns[1:2]
    assert beginning_with_a_question([]) == []
