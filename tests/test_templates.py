"""Templates: what a folder of them may have, and what filling them in can cost."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.prompts import PROMPT_CHARS, VARIABLES_BYTES, Scalar, Template, Variables, prompt_of
from chat.templates import POWER_BITS, RENDER_SECONDS, TemplatesError, load_templates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    return folder


def loaded(folder: Path, source: str) -> Template:
    (folder / "one.txt").write_text(source)
    return load_templates(folder)["one"]


def filled(folder: Path, source: str, **variables: Scalar | list[Scalar]) -> str:
    return prompt_of({"one": loaded(folder, source)}, "one", variables)


# --- the folder


def test_templates_are_the_files_directly_in_the_folder(folder: Path) -> None:
    for name in ("a.txt", "B-1.md", "c_2.j2", ".hidden.txt", "notes", "image.png", "Makefile.am"):
        (folder / name).write_text("Be {{ tone }}.\n")
    (folder / "deeper.txt").mkdir()
    (folder / "deeper.txt" / "d.txt").write_text("{{")
    templates = load_templates(folder)
    assert sorted(templates) == ["B-1", "a", "c_2"]
    assert {template.name: template.variables for template in templates.values()} == {
        name: {"tone"} for name in templates
    }
    assert templates["a"].render({"tone": "brief"}) == "Be brief."


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"", "a.md": b""}, "a.txt: there is another template of this name"),
        ({"a b.txt": b""}, "a b.txt: a template's name has 1 to 64 of A-Z, a-z, 0-9, _ and -"),
        ({"a.b.txt": b""}, "a.b.txt: a template's name has"),
        ({"x" * 65 + ".txt": b""}, "a template's name has"),
        ({"a.txt": b"\xff"}, "a.txt: it is not UTF-8"),
        ({"a.txt": b"{% if x %}"}, "a.txt, line 1: Unexpected end of template"),
        ({"a.txt": b"\n{{ x|shout }}"}, "a.txt, line 2: No filter named 'shout'"),
        ({"a.txt": b"{{ x|center(80) }}"}, "a.txt, line 1: No filter named 'center'"),
        ({"a.txt": b"{{ x is loud }}"}, "a.txt, line 1: No test named 'loud'"),
        ({"a.txt": b"{% include 'b.txt' %}"}, "a.txt: a template cannot include, import or extend another one here"),
        ({"a.txt": b"{% extends x %}"}, "a.txt: a template cannot include, import or extend another one here"),
        ({"a.txt": b"{% for i in range(9) %}{% endfor %}"}, "a.txt: there is no range() in templates here"),
        ({"a.txt": b"{{ x.ljust(9) }}"}, "a.txt: there is no .ljust() in templates here"),
        ({"a.txt": b"{{ '-' * x }}"}, "a.txt: * is for numbers here"),
        ({"a.txt": b"{{ '%9d' % x }}"}, "a.txt: % is for numbers here"),
    ],
)
def test_what_is_wrong_is_said_when_they_are_loaded(folder: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(TemplatesError) as caught:
        load_templates(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_that_is_none_is_said_to_be_none(folder: Path) -> None:
    with pytest.raises(TemplatesError, match="it cannot be read: No such file or directory: "):
        load_templates(folder / "nowhere")
    (folder / "file").touch()
    with pytest.raises(TemplatesError, match="it cannot be read: Not a directory: "):
        load_templates(folder / "file")


# --- what they say


@pytest.mark.parametrize(
    ("source", "variables", "text"),
    [
        ("Hello", {}, "Hello"),
        ("Hello {{ name }}!\n", {"name": "<Ann & Bob>"}, "Hello <Ann & Bob>!"),
        ("{% for tag in tags if tag %}\n- {{ tag }}\n{% endfor %}\nEnd", {"tags": ["a", "", 2]}, "- a\n- 2\nEnd"),
        ("{% if formal %}Sir{% else %}Hey{% endif %}", {"formal": False}, "Hey"),
        ("{{ names|join(', ')|upper }}", {"names": ["a", "b"]}, "A, B"),
        ("{{ name.strip().title() }}", {"name": " ann "}, "Ann"),
        ("{{ count * 2 + 7 % 4 }}", {"count": 3}, "9"),
        ("{{ size ** 2 }}", {"size": 1.5}, "2.25"),
        ("{{ 2 ** -1 }}{{ 2 ** bits }}", {"bits": 10}, "0.51024"),
        ("{% set x = 'set' %}{{ x }}{% raw %}{{ x }}{% endraw %}", {}, "set{{ x }}"),
        (
            "{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m(name) %}!{% endcall %}",
            {"name": "a"},
            "<a!>",
        ),
        ("{{ name }}", {"name": "{{ 1 + 1 }}"}, "{{ 1 + 1 }}"),
    ],
)
def test_template_is_filled_in(folder: Path, source: str, variables: Variables, text: str) -> None:
    assert filled(folder, source, **variables) == text  # type: ignore[arg-type]


def test_unknown_template_is_said_to_be_unknown(folder: Path) -> None:
    with pytest.raises(ChatError) as caught:
        prompt_of({"one": loaded(folder, "")}, "two", {})
    assert caught.value.code == "template_unknown"
    assert "one" not in caught.value.message


def test_variables_are_all_of_the_template_and_no_others(folder: Path) -> None:
    with pytest.raises(ChatError) as caught:
        filled(
            folder, "{{ a }}{{ b }}{% set c = 1 %}{{ c }}{% for d in e %}{{ d }}{% endfor %}", a="my secret", z=1, y=2
        )
    assert caught.value.code == "invalid_request"
    assert caught.value.message == "variables.b: It is missing."
    assert caught.value.details["errors"] == [
        {"field": "variables.b", "message": "It is missing."},
        {"field": "variables.e", "message": "It is missing."},
        {"field": "variables.y", "message": "The template has no such variable."},
        {"field": "variables.z", "message": "The template has no such variable."},
    ]
    assert "my secret" not in repr(caught.value.details)


def test_variables_are_no_documents(folder: Path) -> None:
    fits = VARIABLES_BYTES - len('{"x": ""}')
    assert filled(folder, "{{ x }}", x="a" * fits) == "a" * fits
    with pytest.raises(ChatError, match=r"at most 16,384 bytes"):
        filled(folder, "{{ x }}", x="a" * (fits + 1))


# --- what cannot be done to it


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("{{ x * n }}", {"x": "a", "n": 10**9}),
        ("{{ x * n }}", {"x": ["a"], "n": 10**9}),
        ("{{ x % n }}", {"x": "%999999999d", "n": 1}),
        ("{{ x ** x }}", {"x": POWER_BITS}),
        ("{{ x ** n }}", {"x": 2.5, "n": 10**6}),
        ("{{ x['ljust'](n) }}", {"x": "a", "n": 10**9}),
        ("{{ x|map(f, n)|list }}", {"x": ["a"], "f": "center", "n": 10**9}),
        ("{{ x.__class__.__mro__ }}", {"x": "a"}),
        ("{{ x['__class__'] }}", {"x": "a"}),
        ("{{ x() }}", {"x": "a"}),
        ("{{ x.name }}", {"x": "a"}),
        ("{{ x[n] }}", {"x": ["a"], "n": "b"}),
        ("{{ x + n }}", {"x": "a", "n": 1}),
        ("{{ n / x }}", {"x": 0, "n": 1}),
        ("{{ x|first }}", {"x": []}),
        ("{{ x|sum }}", {"x": ["a"]}),
        ("{{ x|wordwrap(n) }}", {"x": "a", "n": -1}),
        ("{% for a in n %}{% endfor %}", {"n": 1}),
        ("{% for a in x recursive %}{{ loop(x) }}{% endfor %}", {"x": [1]}),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", {}),
        ("{% for a in x %}{% for b in x %}{{ x }}{% endfor %}{% endfor %}", {"x": ["a"] * 3_000}),
    ],
)
def test_values_that_do_not_fit_are_refused(folder: Path, source: str, variables: Variables) -> None:
    began = time.thread_time()
    with pytest.raises(ChatError) as caught:
        filled(folder, source, **variables)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_request"
    assert caught.value.message == "variables: the template cannot be filled with these values."
    assert time.thread_time() - began < 10 * RENDER_SECONDS


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in x %}{% for b in x %}{% for c in x if c > 1 %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{% endmacro %}" + "{% for a in x %}" * 3 + "{{ m() }}" + "{% endfor %}" * 3,
    ],
)
def test_loops_end_in_time(folder: Path, source: str) -> None:
    began = time.thread_time()
    with pytest.raises(ChatError):
        filled(folder, source, x=[1] * 1_000)
    assert time.thread_time() - began < 10 * RENDER_SECONDS


def test_prompt_has_a_greatest_length(folder: Path) -> None:
    source = "x" * (PROMPT_CHARS - 1) + "{{ x }}"
    assert len(filled(folder, source, x="a")) == PROMPT_CHARS
    with pytest.raises(ChatError):
        filled(folder, source, x="ab")


values = st.text(max_size=20) | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)

SOURCES = (
    "{{ x }} {{ y }}",
    "{{ x + y }}",
    "{{ x * y }}",
    "{{ x % y }}",
    "{% for a in x %}{{ a }}{% if a == y %}!{% endif %}{% endfor %}",
    "{{ x|join(y) }}",
    "{{ x|replace(y, x) }}",
    "{{ x|round(y) }}",
    "{{ x|truncate(y) }}",
    "{{ (x|sort)[y] }}",
    "{{ x ** y }}",
)


@given(st.sampled_from(SOURCES), values | st.lists(values, max_size=5), values | st.lists(values, max_size=5))
def test_whatever_the_values_there_is_a_text_or_a_refusal(
    folder: Path, source: str, x: Scalar | list[Scalar], y: Scalar | list[Scalar]
) -> None:
    try:
        text = filled(folder, source, x=x, y=y)
    except ChatError as refused:
        code = refused.code
    else:
        code = "invalid_request"
        assert len(text) <= PROMPT_CHARS
    assert code == "invalid_request"
