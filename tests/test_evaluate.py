"""Evaluation: the right questions, samples that are kept, a summary that can be done by hand, and no lost work."""

import json

import models
import pytest

from r1repro import data
from r1repro.engine import vocabulary
from r1repro.records import Refusal
from r1repro.stages import evaluate
from r1repro.tinyworld import arithmetic


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_base):
    return evaluate.run(
        models.small_evaluation(), tmp_path_factory.mktemp("e") / "run", tiny_base, models.SMALL_MACHINE
    )


def rows(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n") if line]


def test_samples_are_kept_with_all_that_a_ledger_needs(done):
    found = rows(done)
    assert len(found) == 6 and all(len(row["outputs"]) == 3 for row in found)
    assert found[0].keys() >= {"id", "question", "gold", "language", "level", "outputs"}
    for row in found:
        for output in row["outputs"]:
            assert output.keys() == {"text", "verdict", "score", "length", "truncated", "answer"}
            assert 1 <= output["length"] <= 12 and output["truncated"] in (True, False)
            assert output["score"] == {"right": 1.0, "wrong": 0.0, "unparsed": 0.0}[output["verdict"]]


def test_only_questions_of_the_split_are_asked(done):
    found = rows(done)
    assert {arithmetic.split_of(row["id"]) for row in found} == {"test"}
    assert [row["id"] for row in found] == [q.id for q in data.split_questions("reasoning", "test", 0, 6)]


def test_a_summary_done_by_hand():
    def output(verdict, answer, length, truncated=False):
        score = {"right": 1.0, "wrong": 0.0, "timed_out": None}[verdict]
        return dict(text="", verdict=verdict, score=score, answer=answer, length=length, truncated=truncated)

    samples = [
        {"outputs": [output("right", "5", 10), output("right", "5", 20), output("wrong", "6", 30)]},
        {"outputs": [output("wrong", "7", 40, True), output("wrong", "7", 50), output("right", "8", 60)]},
        {"outputs": [output("timed_out", None, 70), output("right", "9", 80), output("right", "9", 90, True)]},
    ]
    found = evaluate.summarise(samples)
    assert found["questions"] == 3 and found["k"] == 3
    assert found["pass@1"] == pytest.approx((2 / 3 + 1 / 3 + 2 / 3) / 3)  # a failed grader shows nothing right
    assert found["cons@k"] == pytest.approx(2 / 3)
    assert found["length"] == 50 and found["truncated"] == pytest.approx(2 / 9)


def test_the_summary_is_that_of_the_samples(done):
    assert json.loads((done / "summary.json").read_text()) == evaluate.summarise(rows(done))


def test_the_model_is_sampled_with_the_settings(tmp_path, tiny_base, monkeypatch):
    asked, honest = [], evaluate.sampler.sample

    def watch(model, prompts, num_outputs, **settings):
        named = [settings[name] for name in ("temperature", "top_p", "max_tokens")]
        asked.append((len(prompts), num_outputs, *named, settings["key"][0]))
        return honest(model, prompts, num_outputs, **settings)

    monkeypatch.setattr(evaluate.sampler, "sample", watch)
    evaluate.run(models.small_evaluation(seed=5), tmp_path / "run", tiny_base, models.CHUNKS_OF_TWO)
    assert asked == [(2, 3, 0.6, 0.95, 12, 5)] * 3


def test_answers_are_kept_as_they_are_counted(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setattr(vocabulary.Vocabulary, "text", lambda self, ids: "<answer> 1,024 </answer>")
    run = evaluate.run(models.small_evaluation(), tmp_path / "run", tiny_base, models.CHUNKS_OF_TWO)
    assert {output["answer"] for row in rows(run) for output in row["outputs"]} == {"1024"}


@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize("torn", ["", '{"step": 99, "outp'])
def test_an_interrupted_evaluation_ends_with_the_same_samples(done, tmp_path, tiny_base, monkeypatch, stop_after, torn):
    calls, honest = iter(range(9)), evaluate.sampler.sample
    with monkeypatch.context() as patch:
        patch.setattr(
            evaluate.sampler, "sample", lambda *a, **k: honest(*a, **k) if next(calls) < stop_after else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            evaluate.run(models.small_evaluation(), tmp_path / "run", tiny_base, models.CHUNKS_OF_TWO)
    with open(tmp_path / "run" / "samples.jsonl", "a") as file:
        file.write(torn)
    again = evaluate.run(models.small_evaluation(), tmp_path / "run", tiny_base, models.CHUNKS_OF_TWO)
    for name in ("samples.jsonl", "summary.json"):
        assert (again / name).read_bytes() == (done / name).read_bytes()


def test_a_chunk_that_was_half_written_is_done_again(done, tmp_path, tiny_base, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "summarise", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate.run(models.small_evaluation(), tmp_path / "run", tiny_base, models.CHUNKS_OF_TWO)
    file = tmp_path / "run" / "samples.jsonl"
    file.write_text("".join(line + "\n" for line in file.read_text(encoding="utf-8").split("\n")[:3]), encoding="utf-8")
    asked, honest = [], evaluate.sampler.sample
    monkeypatch.setattr(evaluate.sampler, "sample", lambda *a, **k: asked.append(k["question_keys"]) or honest(*a, **k))
    evaluate.run(models.small_evaluation(), tmp_path / "run", tiny_base, models.CHUNKS_OF_TWO)
    assert file.read_bytes() == (done / "samples.jsonl").read_bytes()
    ids = [int(row["id"], 16) for row in rows(done)]
    assert asked == [ids[2:4], ids[4:6]]  # in the chunks of an undisturbed run


def test_rows_side_by_side_change_no_sample(done, tmp_path, tiny_base):
    evaluate.run(models.small_evaluation(), tmp_path / "run", tiny_base)
    assert [r["outputs"] for r in rows(tmp_path / "run")] == [r["outputs"] for r in rows(done)]


def test_a_finished_evaluation_returns_at_once(done, tiny_base, monkeypatch):
    monkeypatch.setattr(evaluate.actors, "load", lambda *_: pytest.fail("a finished evaluation must load no model"))
    assert evaluate.run(models.small_evaluation(), done, tiny_base, models.SMALL_MACHINE) == done


def test_another_model_is_another_evaluation(done, tmp_path):
    other = models.save_base(tmp_path / "other", seed=5)
    with pytest.raises(Refusal, match="holds another run .*model"):
        evaluate.run(models.small_evaluation(), done, other, models.SMALL_MACHINE)


def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, tiny_base):
    run = models.rl.train(models.small_rl(num_rollouts=1), tmp_path / "rl", tiny_base, models.SMALL_MACHINE)
    folder = models.newest(run)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-9])
    with pytest.raises(Refusal, match="model.safetensors") as caught:
        evaluate.run(models.small_evaluation(), tmp_path / "e", folder, models.SMALL_MACHINE)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    (folder / "model.safetensors").write_bytes(data)  # mended: the folder of the evaluation was not taken by the damage
    evaluate.run(models.small_evaluation(), tmp_path / "e", folder, models.SMALL_MACHINE)


def test_changed_weights_of_a_checkpoint_are_refused(tmp_path, tiny_base):
    run = models.rl.train(models.small_rl(num_rollouts=1), tmp_path / "rl", tiny_base, models.SMALL_MACHINE)
    file = models.newest(run) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(Refusal, match="model.safetensors"):
        evaluate.run(models.small_evaluation(), tmp_path / "e", file.parent, models.SMALL_MACHINE)
