"""Models by name: out of the cache where it is whole, one line for each thing that can go wrong, nothing unsafe.

The cache is a folder as Hugging Face lays it out, and no test has a network.
"""

import json
import os
import shutil

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors

from r1repro import paper, students
from r1repro.config import SFT, Policy
from r1repro.engine import hub, policy
from r1repro.records import Refusal
from r1repro.run import read_json, write_json
from r1repro.tinyworld import base

COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def fill(cache, model, repository="org/name", commit=COMMIT, ref="main"):
    """Put the files of a model into the cache: blobs, and a snapshot of links to them."""
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (place / "blobs").mkdir(exist_ok=True)
    for file in model.iterdir():
        shutil.copyfile(file, place / "blobs" / f"{commit}-{file.name}")
        (snapshot / file.name).symlink_to(os.path.join("..", "..", "blobs", f"{commit}-{file.name}"))
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / ref).write_text(commit)
    return snapshot


def network(monkeypatch, answer):
    """There is one, and it answers so; what is in the cache is looked up as ever.  Returns the calls."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    plain, calls = huggingface_hub.snapshot_download, []

    def download(repository, **options):
        if options.get("local_files_only"):
            return plain(repository, **options)
        calls.append((repository, options))
        if isinstance(answer, Exception):
            raise answer
        return str(answer() if callable(answer) else answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def http_error(kind, status):
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/name")
    return kind(f"{status} Client Error.\nRequest ID: x", response=httpx2.Response(status, request=request))


def refused(name, *needed, **more):
    with pytest.raises(Refusal) as refusal:
        hub.folder(name, **more)
    assert "\n" not in str(refusal.value)
    assert all(word in str(refusal.value) for word in needed), str(refusal.value)


def test_a_folder_is_what_it_is(tiny_base, cache):
    assert hub.folder(tiny_base) == tiny_base and hub.folder(str(tiny_base)) == tiny_base
    assert hub.origin(tiny_base) is None


def test_a_cached_model_needs_no_network_and_is_known_by_its_commit(cache, tiny_base):
    snapshot = fill(cache, tiny_base)
    found = hub.folder("org/name")
    assert found == snapshot and found.name == COMMIT and hub.origin(found) == f"org/name@{COMMIT}"
    assert policy.load(found).num_parameters() == policy.load(tiny_base).num_parameters()
    assert base.digest(found) == base.digest(tiny_base)


def test_a_student_is_its_base(cache, tiny_base):
    snapshot = fill(cache, tiny_base, "Qwen/Qwen2.5-Math-1.5B")
    assert hub.folder("qwen-1.5b") == snapshot
    refused("qwen-7b", "Qwen/Qwen2.5-Math-7B is not whole in the cache")


@pytest.mark.parametrize("ask", [dict(name="org/name@v2"), dict(name="org/name", revision="v2")])
def test_a_revision_is_asked_for_by_name_or_by_commit(cache, tiny_base, ask):
    fill(cache, tiny_base)
    other = fill(cache, tiny_base, commit=OTHER, ref="v2")
    assert hub.folder(**ask) == other == hub.folder(f"org/name@{OTHER}")
    refused("org/name@v3", "org/name@v3 is not whole in the cache", "--revision v3")


def test_what_is_cached_is_not_asked_for_again(cache, tiny_base, monkeypatch):
    snapshot, calls = fill(cache, tiny_base), network(monkeypatch, RuntimeError("asked"))
    assert hub.folder("org/name") == snapshot and calls == []


def test_what_is_not_cached_is_downloaded_and_never_a_pickle_or_a_program(cache, tiny_base, monkeypatch):
    calls = network(monkeypatch, lambda: fill(cache, tiny_base))
    assert hub.folder("org/name@v2").name == COMMIT
    ((repository, options),) = calls
    assert repository == "org/name" and options["revision"] == "v2"
    names = (
        "model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json config.json vocab.json "
        "generation_config.json tokenizer.json tokenizer.model chat_template.jinja merges.txt"
    ).split()
    unsafe = (
        "pytorch_model.bin modeling_x.py tokenization_x.py tokenizer.py consolidated.00.pth vocab.pt README.md "
        "original/consolidated.00.pth original/params.json onnx/model.onnx original/model.safetensors"
    ).split()
    filter_ = huggingface_hub.utils.filter_repo_objects
    patterns = dict(allow_patterns=options["allow_patterns"], ignore_patterns=options["ignore_patterns"])
    assert set(filter_([*names, *unsafe], **patterns)) == set(names)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_and_not_cached_is_told_how_to_fill_the_cache(cache, monkeypatch, variable):
    calls = network(monkeypatch, RuntimeError("asked"))
    monkeypatch.setenv(variable, "1")
    refused("org/name", "org/name is not whole in the cache at", str(cache), "hf download org/name", "HF_HOME")
    assert calls == []


def test_the_environment_is_asked_anew_each_time(cache, tiny_base, tmp_path, monkeypatch):
    fill(cache, tiny_base)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    refused("org/name", str(tmp_path / "other"))
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hub.folder("org/name").name == COMMIT


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "model-00002-of-00002.safetensors"])
def test_a_download_that_was_stopped_is_gone_on_with(cache, tiny_base, monkeypatch, missing):
    snapshot = fill(cache, tiny_base)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    if missing in names:
        (snapshot / "model.safetensors").rename(snapshot / names[0])
        shutil.copyfile(snapshot / names[0], snapshot / names[1])
        write_json(snapshot / "model.safetensors.index.json", {"weight_map": {"a": names[0], "b": names[1]}})
    whole = (snapshot / missing).read_bytes()
    (snapshot / missing).unlink()
    refused("org/name", "not whole")

    def finish():
        (snapshot / missing).write_bytes(whole)
        return snapshot

    calls = network(monkeypatch, finish)
    assert hub.folder("org/name") == snapshot and len(calls) == 1


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (http_error(errors.GatedRepoError, 403), ["accept", "https://huggingface.co/org/name", "hf auth login"]),
        (http_error(errors.GatedRepoError, 401), ["licence", "HF_TOKEN"]),
        (http_error(errors.RepositoryNotFoundError, 401), ["there is no org/name", "private"]),
        (
            http_error(errors.RevisionNotFoundError, 404),
            ["no revision 'v2'", "organisation/name@revision", "/commits/main"],
        ),
        (http_error(errors.HfHubHTTPError, 500), ["org/name@v2 cannot be downloaded", "500", "HF_HOME"]),
        (errors.LocalEntryNotFoundError("no\nnetwork"), ["cannot be downloaded (no network)", "hf download org/name"]),
        (errors.XetDownloadError("broken"), ["cannot be downloaded (broken)"]),
        (httpx2.ConnectError("no route"), ["cannot be downloaded (no route)"]),
        (OSError(28, "No space left on device"), ["No space left"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_failure_of_the_network_is_one_line_with_the_way_out(cache, monkeypatch, error, needed):
    network(monkeypatch, error)
    refused("org/name@v2", *needed)


def test_a_repository_without_safetensors_is_refused(cache, tiny_base, monkeypatch):
    snapshot = fill(cache, tiny_base)
    (snapshot / "model.safetensors").unlink()
    network(monkeypatch, snapshot)
    refused("org/name", "lacks *.safetensors", "another")


@pytest.mark.parametrize("name", ["qwen", "a/b/c", "a b/c", "org/name@", "../x", "a..b/c", "org/name.git"])
def test_what_is_no_name_is_refused_with_the_students(cache, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(name, f"no model at {name}", "organisation/name@revision", "qwen-0.5b")


# --- more positions


def test_positions_are_raised_and_nothing_else(cache, tiny_base, tmp_path):
    snapshot = fill(cache, tiny_base)
    made = hub.extended(snapshot, 131072, tmp_path / "base")
    before, after = read_json(snapshot / "config.json"), read_json(made / "config.json")
    assert made == tmp_path / "base" and after == before | {"max_position_embeddings": 131072}
    assert (made / "model.safetensors").is_symlink() and hub.origin(made) == f"org/name@{COMMIT}"
    assert not os.path.islink(made / "config.json") and policy.load(made).config.max_position_embeddings == 131072
    assert hub.extended(made, 131072, tmp_path / "again") == made
    assert hub.extended(snapshot, 131072, tmp_path / "base") == made


def test_positions_that_are_stored_cannot_be_raised(tmp_path):
    write_json(tmp_path / "config.json", {"n_positions": 1024})
    with pytest.raises(Refusal, match="no rotary positions"):
        hub.extended(tmp_path, 131072, tmp_path / "base")


# --- students


def test_the_papers_students_are_those_of_the_table():
    rows = {row["base_model_hf_id"]: row for row in paper.table("students")}
    theirs = [one for one in students.students().values() if one.source == "students.csv"]
    assert {one.base for one in theirs} == rows.keys() and len(theirs) == 6
    for one in theirs:
        row = rows[one.base]
        assert one.sft() == {"learning_rate": float(row["initial_learning_rate"]), "final_share": 0.1}
        assert one.licence == row["base_license"] and one.parameters == row["params_nominal"]
        assert (one.max_positions is not None) == ("4096" in row["note"] or "RoPE" in row["note"])
    assert f"to {students.EXTENDED} with rope_theta unchanged" in rows["Qwen/Qwen2.5-Math-1.5B"]["note"]


def test_ours_say_that_they_are_ours():
    ours = [one for one in students.students().values() if one.source != "students.csv"]
    assert [one.name for one in ours] == ["qwen-0.5b", "qwen-1.5b-base", "qwen-3b"]
    assert all(one.source.startswith("Ours") and one.learning_rate == 1e-4 for one in ours)
    with pytest.raises(Refusal, match="no student called 'qwen': choose one of qwen-1.5b, .*llama-70b, qwen-0.5b"):
        students.student("qwen")


def test_the_settings_of_a_student_are_settings():
    for one in students.students().values():
        made = SFT(**one.sft(), policy=Policy(template=one.template))
        assert made.learning_rate * made.final_share == pytest.approx(one.final_learning_rate)
    assert json.dumps(students.student("qwen-7b").sft()) == '{"learning_rate": 8e-05, "final_share": 0.1}'
