"""A seed in one file: the same report comes of it, and nothing else can be put into `out` by it."""

import io
import json
import lzma
import runpy
import tarfile
from pathlib import Path

import pytest

from r1repro import pack, report
from r1repro.__main__ import main
from r1repro.records import Refusal

write_world = runpy.run_path(str(Path(__file__).with_name("test_ledger.py")))["write_world"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two seeds, with checkpoints beside what they measured, and a run that did not come to its end."""
    out = write_world(tmp_path_factory.mktemp("world") / "out", seeds=(0, 1))
    run = out / "smoke" / "seed-0" / "r1_zero"
    (run / "checkpoints" / "step-000004").mkdir(parents=True)
    (run / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"large")
    (run / "checkpoints" / "step-000004" / "manifest.json").write_text("{}")
    (out / "smoke" / "seed-0" / "half").mkdir()
    (out / "smoke" / "seed-0" / "half" / "manifest.json").write_text(json.dumps({"exit": None}))
    return out


def test_the_report_of_unpacked_seeds_is_that_of_the_runs(out, tmp_path):
    there = tmp_path / "out"
    for seed in (0, 1):
        file = pack.pack(out / "smoke" / f"seed-{seed}", tmp_path / f"seed-{seed}.tar.xz")
        assert pack.unpack(file, there / "smoke") == there / "smoke" / f"seed-{seed}"
    assert not [*there.rglob("checkpoints")] and not [*there.rglob("half")]
    first, second = (report.build("smoke", place, tmp_path / name) for name, place in (("a", out), ("b", there)))
    for name in ("claims.json", "digests.json"):
        assert (first / name).read_text() == (second / name).read_text()


def test_the_same_runs_make_the_same_file(out, tmp_path):
    seed = out / "smoke" / "seed-1"
    first = pack.pack(seed, tmp_path / "a.tar.xz").read_bytes()
    for file in seed.rglob("*"):
        file.touch()
    assert pack.pack(seed, tmp_path / "b.tar.xz").read_bytes() == first


def archive(file, *members):
    with lzma.open(file, "wb") as whole, tarfile.open(fileobj=whole, mode="w") as inside:
        for name, kind in members:
            about = tarfile.TarInfo(name)
            about.type, about.size, about.linkname = kind, 2 if kind == tarfile.REGTYPE else 0, "/etc/passwd"
            inside.addfile(about, io.BytesIO(b"{}") if about.size else None)
    return file


@pytest.mark.parametrize(
    "members",
    [
        [("../manifest.json", tarfile.REGTYPE)],
        [("/seed-0/manifest.json", tarfile.REGTYPE)],
        [("seed-0/run/manifest.json", tarfile.SYMTYPE)],
        [("seed-0/run/model.pkl", tarfile.REGTYPE)],
        [("manifest.json", tarfile.REGTYPE)],
        [("seed-0/manifest.json", tarfile.REGTYPE), ("seed-1/manifest.json", tarfile.REGTYPE)],
        [],
    ],
)
def test_what_is_no_seed_is_refused_and_leaves_nothing(tmp_path, members):
    file = archive(tmp_path / "bad.tar.xz", *members)
    with pytest.raises(Refusal, match="give a file that `pack` wrote"):
        pack.unpack(file, tmp_path / "out" / "smoke")
    assert [path.name for path in tmp_path.rglob("*")] == ["bad.tar.xz"]


def test_a_damaged_file_an_absent_seed_and_one_that_is_there_are_refused(out, tmp_path, monkeypatch, capsys):
    file = pack.pack(out / "smoke" / "seed-0", tmp_path / "seed-0.tar.xz")
    whole = file.read_bytes()
    for wrong in (whole[: len(whole) // 2], whole[:200] + b"\0\0\0\0" + whole[204:], b"no archive"):
        file.write_bytes(wrong)
        with pytest.raises(Refusal, match="is no packed seed, or is damaged"):
            pack.unpack(file, tmp_path / "out" / "smoke")
    assert not (tmp_path / "out" / "smoke" / "seed-0").exists()
    monkeypatch.setenv("R1REPRO_OUT", str(out))
    file.write_bytes(whole)
    assert main(["unpack", "--tier", "smoke", str(file)]) == 2
    assert "seed-0 is there already and is not overwritten" in capsys.readouterr().err
    assert main(["pack", "--tier", "smoke", "--seed", "7", "--to", str(tmp_path / "x")]) == 2
    assert "seed-7 holds no complete run" in capsys.readouterr().err


def test_the_verbs_carry_a_seed_from_one_folder_of_runs_to_another(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", "--tier", "smoke", "--seed", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == "reports/smoke/seeds/seed-1.tar.xz\n"
    assert main(["unpack", "--tier", "smoke", "--out", "there", "reports/smoke/seeds/seed-1.tar.xz"]) == 0
    assert (tmp_path / "there" / "smoke" / "seed-1" / "r1_zero" / "manifest.json").exists()
