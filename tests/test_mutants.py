"""The list of mutants does not rot: each still applies and compiles, and its tests exist.  `make mutants` runs them."""

import ast
from collections import Counter
from pathlib import Path

import mutants
import pytest

MUTANTS = mutants.load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["name"] for mutant in MUTANTS])
def test_a_mutant_applies_and_its_tests_exist(mutant):
    assert mutant.keys() == {"name", "file", "find", "replace", "why", "tests"} and mutant["tests"]
    file = mutants.source(mutant)
    text = file.read_text(encoding="utf-8")
    changed = mutants.mutated(mutant, text)
    assert ast.dump(compile(changed, file, "exec", ast.PyCF_ONLY_AST)) != ast.dump(ast.parse(text))
    for test in mutant["tests"]:
        name, _, function = test.partition("::")
        tests = ast.parse((Path(__file__).parent / name).read_text(encoding="utf-8"))
        assert not function or function in {
            node.name for node in ast.walk(tests) if isinstance(node, ast.FunctionDef)
        }, test


def test_no_two_mutants_have_one_name_or_are_the_same():
    assert max(Counter(mutant["name"] for mutant in MUTANTS).values()) == 1
    assert max(Counter((mutant["file"], mutants.mutated(mutant, mutants.source(mutant).read_text(encoding="utf-8")))
                       for mutant in MUTANTS).values()) == 1  # fmt: skip


@pytest.mark.parametrize("text", ["", "a b", "b b"])
def test_a_text_that_does_not_stand_there_once_is_refused(text):
    mutant = {"file": "x.py", "find": "b", "replace": "c"}
    if text == "a b":
        assert mutants.mutated(mutant, text) == "a c"
    else:
        with pytest.raises(ValueError, match="times in x.py"):
            mutants.mutated(mutant, text)
