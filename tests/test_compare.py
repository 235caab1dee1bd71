"""Two runs side by side: what differs is named, what is paired stays paired, and what cannot be compared is refused."""

import json

import models
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1repro import __main__ as cli
from r1repro import compare, show
from r1repro.records import Refusal
from r1repro.run import GLOSSARY
from r1repro.stages import evaluate, rl

MANIFEST = {"stage": "evaluate", "seed": 0, "config": {"k": 2}, "exit": "complete", "wall_s": 1.0}


def output(right, length=10, truncated=False, answer=None):
    return dict(text="", verdict="right" if right else "wrong", score=float(right), length=length,
                truncated=truncated, answer=answer or ("4" if right else "5"))  # fmt: skip


def question(id, rights, *, family="chain_sum", level=1, **more):
    outputs = [right if isinstance(right, dict) else output(right) for right in rights]
    return {"id": id, "question": f"Q-{id}", "family": family, "level": level, "outputs": outputs, **more}


def write(folder, *, samples=(), metrics=(), **manifest):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | manifest))
    for name, rows in (("samples", samples), ("metrics", metrics)):
        if rows:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluation(folder, samples, **manifest):
    return write(folder, samples=samples, **manifest)


def found(rows, part, what=None):
    chosen = [row for row in rows if row.part == part and what in (None, row.what)]
    return chosen if what is None else chosen[0]


@pytest.fixture
def pair(tmp_path):
    """Four questions in both, one in each alone; two outputs a question."""
    first = [
        question("a", [0, 0]),
        question("b", [1, 0]),
        question("c", [1, 1], level=2),
        question("d", [0, 1], level=2),
    ]
    second = [
        question("d", [1, 1], level=2),
        question("c", [1, 1], level=2),
        question("b", [0, 0]),
        question("a", [1, 1]),
    ]
    alone = {"x": [question("x", [0, 0])], "y": [question("y", [0, 0])]}
    return evaluation(tmp_path / "one", first + alone["x"]), evaluation(tmp_path / "two", alone["y"] + second)


# --- evaluations


def test_only_questions_in_both_count_each_beside_itself(pair):
    rows = compare.side_by_side(*pair)
    assert [(r.what, r.first, r.second) for r in found(rows, "asked")] == [
        ("questions", 5, 5), ("questions in both", 4, 4), ("outputs to each", 2, 2)
    ]  # fmt: skip
    row = found(rows, "all questions", "pass@1")
    assert (row.first, row.second, row.difference, row.questions) == (0.5, 0.75, 0.25, 4)
    before = [[rate, vote, 10, 0] for rate, vote in ((0, 0), (0.5, 1), (1, 1), (0.5, 0))]  # of a, b, c, d
    after = [[rate, vote, 10, 0] for rate, vote in ((1, 1), (0, 0), (1, 1), (1, 1))]
    assert found(rows, "all questions") == compare.paired("all questions", before, after)
    level = found(rows, "level 2", "pass@1")
    assert (level.first, level.second, level.difference, level.questions) == (0.75, 1.0, 0.25, 2)


def test_the_interval_by_hand():
    """One question of four gains 1: a draw of four holds it 0, 1, 2, 3 or 4 times with the chances of a binomial of
    1/4, and 0 (0.316 of all) and 3 (above 2, which is at 0.949) are the ends that leave out 0.025 on each side."""
    before = [[0, 0, 10, 0], [1, 1, 10, 0], [0, 0, 10, 0], [1, 1, 10, 0]]
    after = [[1, 1, 12, 0], [1, 1, 12, 0], [0, 0, 12, 0], [1, 1, 12, 0]]
    rows = {row.what: row for row in compare.paired("all", before, after)}
    assert (rows["pass@1"].difference, rows["pass@1"].low, rows["pass@1"].high) == (0.25, 0.0, 0.75)
    assert (rows["length"].difference, rows["length"].low, rows["length"].high) == (2.0, 2.0, 2.0)


def test_what_is_hard_for_both_is_no_doubt():
    """Questions from hopeless to easy, each of which gains a quarter: paired there is nothing to be unsure of."""
    before = [[rate, 0, 10, 0] for rate in (0.0, 0.25, 0.5, 0.75)]
    row = compare.paired("all", before, [[rate + 0.25, *rest] for rate, *rest in before])[0]
    assert (row.difference, row.low, row.high) == (0.25, 0.25, 0.25)


def test_one_question_has_no_interval():
    row = compare.paired("level 1", [[0, 0, 10, 0]], [[1, 1, 12, 0]])[0]
    assert (row.difference, row.low, row.high, row.questions) == (1.0, None, None, 1)


def test_all_measures_by_hand(tmp_path):
    first = [question("a", [output(True, 10), output(False, 20, True), output(False, 30, answer="6")])]
    second = [question("a", [output(False, 2, answer="7"), output(True, 3), output(True, 4)])]
    rows = compare.side_by_side(evaluation(tmp_path / "a", first), evaluation(tmp_path / "b", second))
    measured = {row.what: (row.first, row.second) for row in found(rows, "all questions")}
    assert measured == {
        "pass@1": (pytest.approx(1 / 3), pytest.approx(2 / 3)),
        "cons@k": (1.0, 1.0),  # a tie of three goes to the first answer, which is right
        "length": (20.0, 3.0),
        "truncated": (pytest.approx(1 / 3), 0.0),
    }


def test_levels_are_those_of_their_family(tmp_path):
    samples = [question(f"{family}{level}", [1, 0], family=family, level=level)
               for family in ("logic", "search") for level in (1, 2)]  # fmt: skip
    rows = compare.side_by_side(evaluation(tmp_path / "a", samples), evaluation(tmp_path / "b", samples))
    parts = list(dict.fromkeys(row.part for row in rows if row.what == "pass@1"))
    assert parts == ["all questions", "logic", "logic, level 1", "logic, level 2", "search", "search, level 1",
                     "search, level 2"]  # fmt: skip


def test_what_changed_most_comes_by_size_then_by_id(tmp_path):
    first = [question("e", [1, 1]), question("b", [1, 0]), question("c", [0, 1]), question("a", [1, 1]),
             question("d", [0, 0])]  # fmt: skip
    second = [question("e", [0, 0]), question("b", [1, 1]), question("c", [0, 0]), question("a", [1, 1]),
              question("d", [0, 1])]  # fmt: skip
    rows = compare.side_by_side(evaluation(tmp_path / "a", first), evaluation(tmp_path / "b", second))
    assert [(r.what, r.difference) for r in found(rows, "changed most")] == [
        ("e Q-e", -1),
        ("b Q-b", 0.5),
        ("c Q-c", -0.5),
    ]


def test_equal_changes_are_equal_though_their_sums_are_not(tmp_path):
    """2/3 - 1/3 and 1/3 - 0 differ in their last digit."""
    first, second = (
        [question("b", [1, 0, 0]), question("a", [0, 0, 0])],
        [question("b", [1, 1, 0]), question("a", [1, 0, 0])],
    )
    rows = compare.side_by_side(evaluation(tmp_path / "a", first), evaluation(tmp_path / "b", second))
    assert [row.what for row in found(rows, "changed most")] == ["a Q-a", "b Q-b"]


def test_evaluations_without_a_question_in_common_are_refused(tmp_path):
    first, second = evaluation(tmp_path / "a", [question("a", [1])]), evaluation(tmp_path / "b", [question("b", [1])])
    with pytest.raises(Refusal, match="share no question.*compare evaluations with one"):
        compare.side_by_side(first, second)


def test_without_samples_the_summaries_are_shown(tmp_path, pair):
    other = write(tmp_path / "c")
    for folder, rate in ((pair[0], 0.25), (other, 0.5)):
        (folder / "summary.json").write_text(json.dumps({"pass@1": rate, "k": 2}))
    rows = compare.side_by_side(pair[0], other)
    assert [(r.what, r.first, r.second) for r in found(rows, "summary")] == [("pass@1", 0.25, 0.5), ("k", 2.0, 2.0)]
    assert found(rows, "all questions") == []


def test_the_means_are_those_of_the_summary(tmp_path, tiny_base):
    done = [
        evaluate.run(models.small_evaluation(temperature=t), tmp_path / str(t), tiny_base, models.SMALL_MACHINE)
        for t in (0.6, 1.5)
    ]
    rows = compare.side_by_side(*done)
    for side, run in zip(("first", "second"), done, strict=True):
        summary = json.loads((run / "summary.json").read_text())
        for row in found(rows, "all questions"):
            assert getattr(row, side) == pytest.approx(summary[row.what])
            assert row.low <= row.difference <= row.high
    assert [row.what for row in found(rows, "differs")] == ["config.temperature"]


# --- what differs, and other runs


def test_differences_of_the_manifests_by_name(tmp_path):
    old = dict(
        commit="a" * 40, threads=2, inputs={"base": "1" * 64}, versions={"torch": "2.13.0", "python": "3.11"},
        config={"k": 2, "rate": 0.1, "gone": True, "rewards": ["a:b"]},
    )  # fmt: skip
    new = dict(
        commit="b" * 40, threads=1, inputs={"base": "2" * 64}, versions={"torch": "2.14.0", "python": "3.11"},
        config={"k": 2, "rate": 0.2, "rewards": ["a:b", "c:d"]}, wall_s=9.0, exit=None, started="later",
    )  # fmt: skip
    rows = compare.side_by_side(write(tmp_path / "a", **old), write(tmp_path / "b", **new))
    assert {row.what: (row.first, row.second) for row in found(rows, "differs")} == {
        "commit": ("a" * 40, "b" * 40), "threads": (2, 1), "inputs.base": ("1" * 64, "2" * 64),
        "versions.torch": ("2.13.0", "2.14.0"), "config.rate": (0.1, 0.2), "config.gone": (True, None),
        "config.rewards": (["a:b"], ["a:b", "c:d"]),
    }  # fmt: skip
    assert found(rows, "run", "state").second == "not complete"
    text = "\n".join(compare.lines(rows))
    assert "aaaaaaaaaaaa  bbbbbbbbbbbb" in text and "a" * 13 not in text and "wall_s" in text.split("took")[1]


def test_the_last_quarter_by_hand(tmp_path):
    one = [{"step": s, "length/mean": float(s), "policy/loss": 1.0, "time/elapsed_s": 9.0 * s} for s in range(1, 9)]
    two = [{"step": s, "length/mean": 10.0 * s, "reward/mean": 0.5, "rollout/index": 0.0} for s in (1, 2, 3, 4)]
    two[0] |= {"reward/accuracy": 0.5, "policy/loss": None}
    tokens = dict(stage="rl", wall_s=60.0, tokens={"sampled": 500})
    rows = compare.side_by_side(
        write(tmp_path / "a", metrics=one, **tokens), write(tmp_path / "b", metrics=two, **tokens)
    )
    assert [(r.what, r.first, r.second, r.difference) for r in found(rows, "last quarter")] == [
        ("length/mean", 7.5, 40.0, 32.5)  # of steps 7 and 8, and of step 4; nothing else is in both
    ]
    assert [(r.what, r.first, r.second) for r in found(rows, "took")] == [
        ("wall_s", 60.0, 60.0), ("steps", 8, 4), ("tokens sampled", 500, 500)
    ]  # fmt: skip


def test_runs_of_rl_are_compared_while_one_is_going_on(tmp_path, tiny_base):
    runs = [
        rl.train(models.small_rl(num_rollouts=2, learning_rate=rate), tmp_path / str(rate), tiny_base)
        for rate in (3e-3, 1e-3)
    ]
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    tokens = manifest.pop("tokens")
    (runs[1] / "manifest.json").write_text(json.dumps(manifest | {"exit": None}))
    with open(runs[1] / "metrics.jsonl", "a") as file:
        file.write('{"step": 99, "po')
    rows = compare.side_by_side(*runs)
    assert [row.what for row in found(rows, "differs")] == ["config.learning_rate"]
    assert (
        found(rows, "took", "steps").second == 4 and found(rows, "took", "tokens sampled").second == tokens["sampled"]
    )
    keys = [row.what for row in found(rows, "last quarter")]
    known = [key for key in GLOSSARY if key in keys]
    assert keys[: len(known)] == known and {"reward/mean", "policy/loss"} <= set(known)
    assert not {"step", "rollout/index", "time/elapsed_s"} & set(keys)


def test_runs_of_different_stages_show_what_is_there(tmp_path, pair):
    rows = compare.side_by_side(pair[0], write(tmp_path / "rl", stage="rl", metrics=[{"step": 1, "reward/mean": 0.5}]))
    assert "stage" in [row.what for row in found(rows, "differs")]
    assert list(compare.lines(rows))[-1] == "nothing was measured in both"


def test_a_run_beside_itself_differs_in_nothing(pair):
    text = "\n".join(compare.lines(compare.side_by_side(pair[0], pair[0])))
    assert "nothing that the manifests hold" in text and "changed most" not in text and "+0.000" in text


# --- what is no run


def test_a_folder_of_runs_is_refused_with_their_names(tmp_path, pair):
    with pytest.raises(Refusal, match=f"{tmp_path} is no run .*manifest.*{pair[0]}, {pair[1]}"):
        compare.side_by_side(tmp_path, pair[0])


ANY = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.just(1), max_size=2)
)
NAMES = ["id", "outputs", "step", "level", "family", "wall_s", "tokens", "config", "policy/loss", "exit", "question"]
OUTPUTS = st.lists(
    st.dictionaries(st.sampled_from(["score", "verdict", "answer", "length", "truncated"]), ANY), max_size=2
)
RECORD = st.dictionaries(st.sampled_from(NAMES), ANY | OUTPUTS | st.dictionaries(st.text(max_size=2), ANY, max_size=2))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["manifest.json", "samples.jsonl", "metrics.jsonl", "summary.json"]),
    content=st.binary(max_size=30) | st.lists(RECORD, max_size=2).map(
        lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()
    ),
)  # fmt: skip
def test_any_file_in_a_run_gives_rows_or_one_line(pair, name, content):
    before = {p: p.read_bytes() for p in pair[1].iterdir()}
    (pair[1] / name).write_bytes(content)
    try:
        assert all(line.isprintable() for line in compare.lines(compare.side_by_side(*pair)))
        show.compare(pair[1], pair[0])
    except Refusal as refusal:
        assert str(refusal) and "\n" not in str(refusal)
    finally:
        (pair[1] / name).unlink()
        for path, data in before.items():
            path.write_bytes(data)


# --- the command and the table


def test_the_command_shows_what_the_function_found(pair, capfd):
    assert cli.main(["compare", str(pair[0]), str(pair[1])]) == 0
    out = capfd.readouterr().out
    assert out == "".join(f"{line}\n" for line in compare.lines(compare.side_by_side(*pair)))
    assert "questions in both  4  4" in out and "pass@1     0.500  0.750  +0.250  [" in out
    assert "level 2  0.750  1.000  +0.250" in out and "0.000  1.000  +1.000  a Q-a" in out


@pytest.mark.parametrize("folder, says", [("nowhere", "is no run"), ("torn", "damaged"), ("list", "damaged")])
def test_what_is_no_run_is_answered_with_one_line(pair, tmp_path, capfd, folder, says):
    write(tmp_path / "torn"), write(tmp_path / "list")
    (tmp_path / "torn" / "manifest.json").write_text('{"stage"')
    (tmp_path / "list" / "manifest.json").write_text("[]")
    for words in ([pair[0], tmp_path / folder], [tmp_path / folder, pair[0]]):
        assert cli.main(["compare", *map(str, words)]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.startswith("r1repro: ") and err.count("\n") == 1
        assert str(tmp_path / folder) in err and says in err


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b", "c"]])
def test_two_runs_are_wanted(words, capfd):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *words])
    assert stop.value.code == 2 and capfd.readouterr().err.count("\n") == 1


def test_no_text_of_a_question_steers_a_terminal_or_a_page(tmp_path):
    nasty = "\x1b[2J\n<script>alert(1)</script>\ud800"
    runs = []
    for name, right in (("one", 0), ("two", 1)):
        samples = [question("a", [right], family="f\x1b", question=nasty), question("b", [1], family="<b>")]
        runs.append(evaluation(tmp_path / name, samples))
    lines = list(compare.lines(compare.side_by_side(*runs)))
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[2J\\n<script>alert(1)</script>\\ud800" in line for line in lines)
    page = show.compare(*runs)._repr_html_()
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page


def test_the_table_has_what_the_text_leaves_out(pair):
    table = show.compare(*pair)
    assert table.loc[("level 2", "length"), "questions"] == 2
    assert table.loc[("all questions", "pass@1"), "difference"] == 0.25
    assert list(table.columns) == ["first", "second", "difference", "low", "high", "questions"]
    assert "level 2" in "\n".join(compare.lines(compare.side_by_side(*pair)))
    assert table.loc[("asked", "questions in both"), "first"] == 4
