"""One target under Atheris, which looks for inputs that reach new code: see README.md beside this."""

import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CORPUS = Path(".fuzz")

SEEDS = 20

LONGEST = 4_096
"""Bytes of an input: hypothesis makes an example of them."""

PACKAGES = ["chat", "doctor", "handlers", "knowledge", "mcp_tools", "store", "settings"]


def targets() -> dict[str, str]:
    """The modules of all targets, by the targets' names."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for line in path.read_text().splitlines():
            if line.startswith("def test_"):
                found[line.removeprefix("def test_").partition("(")[0]] = f"tests.fuzz.{path.stem}"
    return found


def corpus(name: str) -> Path:
    """The inputs that have reached something; some of no meaning to begin with."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SEEDS):
        (folder / f"seed{number}").write_bytes(random.Random(number).randbytes(LONGEST // 4))
    return folder


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in (known := targets()):
        sys.exit("\n".join(["python -m tests.fuzz.run TARGET [option of libFuzzer ...], with one of", *targets()]))
    import atheris  # in an environment of its own

    name, *options = arguments
    with atheris.instrument_imports(include=PACKAGES):
        module = import_module(known[name])
    target: Any = getattr(module, f"test_{name}")
    atheris.Setup(
        [sys.argv[0], "-len_control=0", f"-max_len={LONGEST}", *options, str(corpus(name))],
        target.hypothesis.fuzz_one_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
