import base64
import json

import pytest

from chat.keys import Key, digest_of, matching, new_key
from chat.seals import Seal


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_seal_says_what_was_sealed_until_its_time_is_over() -> None:
    clock = Clock()
    seal = Seal("secret", clock)
    text, until = seal.sealed({"run": "run_1"}, 60)
    assert until == 1_060
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
    clock.now = 1_059.9
    assert seal.opened(text) == {"run": "run_1"}
    clock.now = 1_060.0
    assert seal.opened(text) is None


def test_a_seal_knows_only_its_own() -> None:
    text, _ = Seal("secret").sealed({"user": "ann"}, 60)
    assert Seal("another").opened(text) is None
    body, _, signature = text.partition(".")
    forged = base64.urlsafe_b64encode(json.dumps([2**40, {"user": "bob"}]).encode()).rstrip(b"=").decode()
    for wrong in ("", ".", body, f"{body}.", f".{signature}", f"{forged}.{signature}", text[:-1], text + "é", "a.b.c"):
        assert Seal("secret").opened(wrong) is None, wrong


@pytest.mark.parametrize("other", ["", "parley_", "é"])
def test_a_key_is_known_by_its_digest_and_nothing_else(other: str) -> None:
    first, second = new_key(), new_key()
    keys = [Key("a", digest_of(first), admin=False), Key("b", digest_of(second), admin=True)]
    assert matching(keys, first) is keys[0]
    assert matching(keys, second) is keys[1]
    assert matching(keys, other) is None
    assert matching(keys, first + other) is (keys[0] if not other else None)
    assert matching(keys, digest_of(first)) is None
    assert matching([], first) is None
