"""`python -m r1repro <verb>`: parse the command line, call one function, print what it returns.

A mistake of a person's is answered with one line and exit code 2.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from r1repro.records import Refusal

SPINS = "10000"
"""What a waiting thread of OpenMP spins before it sleeps; the Makefile says why so much."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.out:
        os.environ["R1REPRO_OUT"] = arguments.out
    try:
        return arguments.run(arguments) or 0
    except Refusal as refusal:
        sys.stderr.write(f"r1repro: {refusal}\n")
        return 2
    except KeyboardInterrupt as stopped:
        sys.stderr.write("r1repro: stopped; give the same command again to go on from the last checkpoint\n")
        return 128 + getattr(stopped, "number", signal.SIGINT)


class _Parser(argparse.ArgumentParser):
    """Argparse's own complaints, in one line too."""

    def error(self, message: str):
        sys.stderr.write(f"r1repro: {message}: see `python -m r1repro --help`\n")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", default=os.environ.get("R1REPRO_OUT"), help="folder of all runs (default: out)")
    tier = argparse.ArgumentParser(add_help=False)
    tier.add_argument("--tier", default="cpu", help="smoke, cpu, gpu, node, cluster or paper (default: cpu)")
    many = argparse.ArgumentParser(add_help=False)
    many.add_argument(
        "--shared", action="store_true",
        help="one of several workers: give each, on any machine that sees the folder, the same command",
    )  # fmt: skip
    parser = _Parser(prog="r1repro", description="DeepSeek-R1, reproduced stage by stage.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb", parser_class=_Parser)

    def verb(name: str, run, text: str, *parents):
        made = verbs.add_parser(name, parents=[common, *parents], help=text, description=text)
        made.set_defaults(run=run)
        return made

    verb("doctor", _doctor, "what this machine has, what will run, what is missing")
    verb("tiers", _tiers, "the settings of every tier beside the paper's")
    made = verb("reproduce", _reproduce, "execute every notebook at a tier", tier)
    made.add_argument("--seeds", nargs="+", default=["0"], help="seeds to run (default: 0)")
    made.add_argument("--again", nargs="+", default=[], metavar="NOTEBOOK", help="delete its runs, make them anew")
    made.add_argument("--claims", default="main", help="main, or all: with the arms beside the main line")
    made = verb("r1-zero", _r1_zero, "train and evaluate R1-Zero without a notebook", tier)
    made.add_argument("--seed", default="0")
    made.add_argument("--run-dir", help="folder of this seed's runs (default: out/<tier>/seed-<seed>)")
    made.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="such as rl.learning_rate=1e-4")
    made = verb("variants", _variants, "run a control and other settings beside the paper's", tier)
    made.add_argument("--seed", default="0")
    made = verb(
        "reject",
        _reject,
        "sample outputs of Dev2, keep the right ones (2.3.3): the long part of notebook 06",
        tier,
        many,
    )
    made.add_argument("--seed", default="0")
    made.add_argument("--model", help="folder, run, base or organisation/name of a hub (default: the seed's Dev2)")
    made.add_argument("--run-dir", help="folder for the examples (default: where notebook 06 looks for them)")
    made.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="such as rejection.max_tokens=4096")
    text = "teach a student by traces of a teacher, evaluate it, write it as a plain model"
    for made in (
        verb("distill", _distill, text, tier),
        verb("tokenise", _tokenise, "turn traces into token ids, for `distill` with the same words", tier, many),
    ):
        made.add_argument("--student", required=True, help="such as qwen-0.5b, or a folder in Hugging Face form")
        made.add_argument("--traces", required=True, help="file of JSON lines or Parquet, or a folder of such files")
        made.add_argument("--run-dir", required=True, help="folder for the runs and the model")
        made.add_argument("--seed", default="0")
        made.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="such as policy.weights=qlora")
    text = "evaluate a model by the protocol of section 3, on benchmarks of the paper or on questions of ours"
    made = verbs.add_parser("evaluate", parents=[tier, many], help=text, description=text)  # its --out is its own
    made.add_argument("--model", required=True, help="folder, run, base such as tiny-1m, or organisation/name of a hub")
    made.add_argument("--benchmark", nargs="+", action="extend", default=[], metavar="NAME", help="see `benchmarks`")
    made.add_argument("--lm-eval", nargs="+", default=[], metavar="TASK", help="tasks of lm_eval over our sampler")
    made.add_argument("--out", dest="target", metavar="DIR", help="folder for samples, summaries and the table")
    made.add_argument("--k", help="samples a question (default: the paper's)")
    made.add_argument("--limit", help="at most so many questions of each benchmark (default: all)")
    made.add_argument(
        "--beside", metavar="MODEL", help="column of the paper (default: the model's own, or DeepSeek-R1)"
    )
    made.add_argument("--run-dir", help="without --benchmark: folder for samples and summary")
    made.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="such as evaluate.k=4")
    made.set_defaults(run=_evaluate, out=None)
    text = "the paper's benchmarks: its numbers, where their files are looked for, what cannot be reproduced"
    made = verb("benchmarks", _benchmarks, text)
    made.add_argument("--lm-eval", action="store_true", help="where the tasks of lm_eval depart from the protocol")
    text = "which questions of a benchmark does a training set hold, by ten words in a row"
    made = verbs.add_parser("contamination", help=text, description=text)  # its --out is a file
    made.add_argument("--train", required=True, metavar="FILE", help="file or folder of rows")
    made.add_argument("--benchmark", nargs="+", action="extend", required=True, metavar="NAME", help="see `benchmarks`")
    made.add_argument("--out", dest="target", metavar="FILE", help="JSON lines: the questions found, and in which rows")
    made.set_defaults(run=_contamination, out=None)
    made = verb("chat", _chat, "talk to a model: each question alone (single turn), in the paper's template")
    made.add_argument("--model", required=True, help="folder of a run or model, or a base such as tiny-1m")
    made.add_argument("--question", action="append", metavar="TEXT", help="answer this and leave; may be repeated")
    made.add_argument("--seed", default="0", help="the same seed and questions give the same outputs (default: 0)")
    made.add_argument("--temperature", help="of the sampling (default: 0.6)")
    made.add_argument("--top-p", help="share of the probability that is sampled from (default: 0.95)")
    made.add_argument("--max-tokens", help="cap of an output, thinking included (default: 448)")
    text = "ask a teacher on a server that speaks OpenAI's protocol, and keep its answers as examples"
    made = verbs.add_parser("teach", help=text, description=text)  # its --out is a file, not the folder of runs
    made.add_argument("--url", required=True, help="of the server, such as http://localhost:8000")
    made.add_argument("--model", required=True, help="as that server calls it")
    made.add_argument(
        "--questions", required=True, metavar="SOURCE", help="a source by name, or a file or folder of rows"
    )
    made.add_argument("--out", dest="target", required=True, metavar="FILE", help="JSONL file that the answers go to")
    made.add_argument("--at-once", default="16", help="requests side by side (default: 16)")
    made.add_argument("--tries", default="6", help="of a question that gets no answer (default: 6)")
    made.add_argument("--timeout", default="1800", metavar="SECONDS", help="without a byte (default: 1800)")
    made.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="such as num_questions=800")
    made.set_defaults(run=_teach, out=None)
    text = "have a model on a server judge outputs: AlpacaEval 2.0, Arena-Hard, SimpleQA, C-SimpleQA, FRAMES"
    made = verbs.add_parser("judge", help=text, description=text)  # its --out is not the folder of all runs
    made.add_argument("--outputs", required=True, metavar="FILE_OR_RUN", help="samples, or the benchmark's own form")
    made.add_argument("--benchmark", required=True, metavar="NAME", help="such as Arena-Hard")
    made.add_argument(
        "--out", dest="target", metavar="FOLDER", help="for verdicts (default: judged, in the run's folder)"
    )
    made.add_argument(
        "--url", help="of the judge's server, such as http://localhost:8000; a file of verdicts needs none"
    )
    made.add_argument("--model", help="the judge, as that server calls it (the paper's: gpt-4-1106-preview)")
    made.add_argument("--price-in", default="0", metavar="PRICE", help="of a million tokens that the judge reads")
    made.add_argument("--price-out", default="0", metavar="PRICE", help="of a million tokens that it writes")
    made.add_argument("--yes", action="store_true", help="ask; without it the costs are told and nothing is asked")
    made.add_argument("--at-once", default="16", help="requests side by side (default: 16)")
    made.add_argument("--tries", default="6", help="of a request that gets no answer (default: 6)")
    made.add_argument("--timeout", default="600", metavar="SECONDS", help="without a byte (default: 600)")
    made.add_argument("--least-tokens", default="0", help="of an answer, for judges that think before they answer")
    made.add_argument("--no-logprobs", action="store_true", help="for servers that give no log-probabilities")
    made.add_argument("--beside", default="DeepSeek-R1", metavar="MODEL", help="column of the paper")
    made.set_defaults(run=_judge, out=None)
    made = verb(
        "export", _export, "write a model as one plain folder of Hugging Face, adapters merged, with a model card"
    )
    made.add_argument("--model", required=True, help="folder of a run or checkpoint")
    made.add_argument("--to", required=True, metavar="FOLDER", help="folder to be made")
    made.add_argument("--dtype", default="bfloat16", help="of the weights: bfloat16, float16 or float32")
    made.add_argument(
        "--base", metavar="ORGANISATION/NAME", help="of its base, for the card, where the run does not say"
    )
    made.add_argument("--evaluation", metavar="RUN", help="folder of an evaluation, for the card")
    made.add_argument("--max-positions", default="0", help="context to be named at least (default: that of the base)")
    made = verb(
        "export-swe-bench", _export_swe_bench, "write a run's patches as SWE-bench reads them, print its command"
    )
    made.add_argument("--run", dest="source", required=True, metavar="RUN", help="evaluation of SWE-bench Verified")
    made.add_argument("--to", required=True, metavar="FILE", help="file of JSON lines to be written")
    made.add_argument("--name", required=True, help="of the model, in the harness's report")
    made = verb(
        "export-aider", _export_aider, "write the settings by which Aider's benchmark asks a model, print its command"
    )
    made.add_argument("--url", required=True, help="of a server that speaks OpenAI's protocol")
    made.add_argument("--model", required=True, help="as that server calls it")
    made.add_argument("--to", required=True, metavar="FOLDER", help="folder that the settings are written to")
    text = "memory, time and cost of a stage on GPUs before it runs, what limits it, what to change"
    made = verb("plan", _plan, text, tier)
    made.add_argument("--student", help="such as qwen-32b, or a folder with a config.json (default: the tier's base)")
    made.add_argument("--stage", default="rl", help="rl, sft, evaluate or sampling (default: rl)")
    made.add_argument("--gpus", help="how many (default: the tier's)")
    made.add_argument("--gpus-per-node", default="8", help="in one machine (default: 8)")
    made.add_argument("--gpu", help="such as h100, h200, a100, rtx4090 (default: the tier's)")
    made.add_argument("--price", default="2", help="of a GPU and hour (default: 2, the paper's)")
    made.add_argument("--mean-tokens", help="of an output (default: by the paper's)")
    made.add_argument("--examples", help="of SFT (default: the paper's 804,745)")
    made.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="such as machine.tensor_parallel=4")
    made = verb("compare", _compare, "what differs between two runs, in what was asked and in what came out")
    made.add_argument("first", metavar="RUN", help="folder of a run, the one that has a manifest.json")
    made.add_argument("second", metavar="RUN", help="folder of the other")
    text = "give verdicts on answers, programs and formats, case by case"
    made = verbs.add_parser("grade", help=text, description=text)  # its --out is a file, not the folder of runs
    made.add_argument("--in", dest="source", required=True, metavar="CASES", help="file with a case of JSON a line")
    made.add_argument("--out", dest="target", required=True, metavar="VERDICTS", help="file that the verdicts go to")
    made.set_defaults(run=_grade, out=None)
    verb("report", _report, "join what the runs measured with the paper's numbers, into out/<tier>/report", tier)
    verb("publish", _publish, "make that report the committed one, in reports/<tier>", tier)
    text = "keep what a seed's runs measured in one file, without the models, to be joined with other seeds"
    made = verb("pack", _pack, text, tier)
    made.add_argument("--seed", default="0")
    made.add_argument("--to", metavar="FILE", help="default: reports/<tier>/seeds/seed-<seed>.tar.xz")
    made = verb("unpack", _unpack, "put packed seeds under out/<tier>, where report and publish find them", tier)
    made.add_argument("files", nargs="+", metavar="FILE", help="such as reports/cpu/seeds/*.tar.xz")
    made = verb("leaderboard", _leaderboard, "enter a tier's runs into the race of the README", tier)
    made.add_argument("--name", required=True, help="who or what takes part")
    made = verb("base", _base, "pre-train the tiny base models anew")
    made.add_argument("--model", nargs="+", default=[], help="names of some of them (default: all)")
    made.add_argument("--run-dir", help="folder of the runs (default: out/base)")
    return parser


def _doctor(_) -> int:
    from r1repro import doctor

    lines = list(doctor.report())
    for state, what, detail in lines:
        sys.stdout.write(f"{state:8} {what:14} {detail}\n")
    return 2 if any(state == "missing" for state, _, _ in lines) else 0


def _tiers(_) -> None:
    from r1repro import config

    rows = config.table()
    for row in [{key: key for key in rows[0]}, *rows]:
        *cells, why = row.values()
        sys.stdout.write(f"{cells[0]:28}" + "".join(f"{cell:>10}" for cell in cells[1:]) + f"  {why}\n")


def _reproduce(arguments) -> None:
    from r1repro import config, notebooks

    config.check_runnable(arguments.tier)
    seeds = [_seed(text) for text in arguments.seeds]
    made = notebooks.execute_all(arguments.tier, seeds, arguments.again, arguments.claims)
    for path in made:
        sys.stdout.write(f"{path}\n")
    if not made:
        sys.stdout.write(
            f"nothing to do: every notebook of tier {arguments.tier} is executed for seeds "
            f"{', '.join(arguments.seeds)} (--again 05_reasoning_rl makes one anew, `make clean` removes all)\n"
        )


def _r1_zero(arguments) -> None:
    from r1repro import config
    from r1repro.run import default_folder
    from r1repro.stages import r1_zero

    config.check_runnable(arguments.tier)
    seed = _seed(arguments.seed)
    settings = config.r1_zero(arguments.tier, seed, config.parse_overrides(arguments.set))
    sys.stdout.write(f"{r1_zero.run(settings, arguments.run_dir or default_folder(arguments.tier, seed))}\n")


def _variants(arguments) -> None:
    from r1repro import config
    from r1repro.run import default_folder
    from r1repro.stages import r1_zero

    config.check_runnable(arguments.tier)
    seed = _seed(arguments.seed)
    for row in r1_zero.run_variants(arguments.tier, seed, default_folder(arguments.tier, seed)):
        for step, summary in row["by_step"].items():
            sys.stdout.write(
                f"{row['name']:20} step {step:>4}  pass@1 {summary['pass@1']:.3f}  cons@{summary['k']} "
                f"{summary['cons@k']:.3f}  length {summary['length']:.0f}  truncated {summary['truncated']:.3f}\n"
            )


def _reject(arguments) -> None:
    from r1repro import config
    from r1repro.engine import actor, work
    from r1repro.run import default_folder
    from r1repro.stages import child, collect, r1

    config.check_runnable(arguments.tier)
    seed = _seed(arguments.seed)
    settings = config.r1(arguments.tier, seed, config.parse_overrides(arguments.set))
    seed_dir = default_folder(arguments.tier, seed)
    if arguments.shared:
        work.check_seen(arguments.run_dir or seed_dir)
    model = _model(arguments.model) if arguments.model else r1.model_of(settings, seed_dir, "dev2")
    actor.check_device(settings.machine.device)
    with child.speaking_of_memory(settings.machine):
        if arguments.run_dir:
            made = collect.collect(
                settings.rejection, arguments.run_dir, model, settings.machine, shared=arguments.shared
            )
        else:
            made = r1.by_rule(settings, seed_dir / "dev3", model, arguments.shared)
    sys.stdout.write(f"{made}\n")


def _model(name: str) -> Path:
    """The folder of a model of this machine, or of a hub."""
    from r1repro import chat
    from r1repro.engine import hub

    local = Path(name).exists() or "/" not in name
    return chat.find(name) if local and not _is_student(name) else hub.folder(name)


def _distill(arguments) -> None:
    from r1repro import config
    from r1repro.stages import distill

    overrides = config.parse_overrides(arguments.set)
    settings = config.distill(arguments.tier, arguments.student, _seed(arguments.seed), overrides)
    sys.stdout.write(f"{distill.start(settings, arguments.run_dir, arguments.traces)}\n")


def _tokenise(arguments) -> None:
    from r1repro import config
    from r1repro.engine import work
    from r1repro.stages import distill

    overrides = config.parse_overrides(arguments.set)
    settings = config.distill(arguments.tier, arguments.student, _seed(arguments.seed), overrides)
    if arguments.shared:
        work.check_seen(arguments.run_dir)
    sys.stdout.write(f"{distill.tokenise(settings, arguments.run_dir, arguments.traces)}\n")


def _evaluate(arguments) -> None:
    from r1repro import config
    from r1repro.engine import work
    from r1repro.run import read_json
    from r1repro.stages import evaluate

    config.check_tier(arguments.tier)
    if arguments.benchmark or arguments.lm_eval:
        return _examine(arguments)
    if not arguments.run_dir:
        raise Refusal("nothing to evaluate on: give --benchmark and --out, or --run-dir for questions of ours")
    settings = config.r1_zero(arguments.tier, 0, config.parse_overrides(arguments.set))
    if arguments.shared:
        work.check_seen(arguments.run_dir)
    done = evaluate.run(settings.evaluate, arguments.run_dir, Path(arguments.model), settings.machine, arguments.shared)
    sys.stdout.write(json.dumps(read_json(done / "summary.json")) + "\n")


def _examine(arguments) -> None:
    from r1repro import config
    from r1repro.engine import work
    from r1repro.evals import catalogue, lm_harness, run

    if not arguments.target:
        raise Refusal("no folder for the samples: give one with --out")
    if arguments.shared:
        if arguments.lm_eval:
            raise Refusal("--shared does not share tasks of lm_eval: leave it out, or give --benchmark alone")
        work.check_seen(arguments.target)
    names = [catalogue.named(name).name for name in arguments.benchmark]
    changes = config.parse_overrides(arguments.set)
    changes = {f"exam.{n.removeprefix('evaluate.')}" if n.startswith("evaluate.") else n: v for n, v in changes.items()}
    given = {"exam.k": arguments.k, "exam.limit": arguments.limit}
    changes |= {name: _whole(f"--{name[5:]}", text) for name, text in given.items() if text is not None}
    model = arguments.model
    if not model.startswith(run.SCRIPTED):
        model = _model(model)
        changes = {"policy.template": run.template_of(model)} | changes
    settings = [config.exam(arguments.tier, name, changes) for name in names]
    beside = arguments.beside or catalogue.own_column(arguments.model)
    catalogue.check_column(beside)
    for name in names:
        catalogue.items_of(catalogue.named(name))  # what is missing is said before anything is sampled
    for exam, machine in settings:
        run.run(exam, run.place(arguments.target, exam.benchmark), model, machine, arguments.shared)
    if names:
        sys.stdout.write(run.save_table(arguments.target, beside))
    if arguments.lm_eval:
        exam, machine = config.exam(arguments.tier, "lm-eval", changes)
        done = lm_harness.run(exam, Path(arguments.target, "lm-eval"), model, arguments.lm_eval, machine)
        sys.stdout.write((done / "results.json").read_text(encoding="utf-8"))


def _is_student(name: str) -> bool:
    from r1repro import students

    return name in students.students()


def _benchmarks(arguments) -> None:
    from r1repro.evals import catalogue, lm_harness

    lines = lm_harness.lines() if arguments.lm_eval else catalogue.lines()
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _contamination(arguments) -> None:
    from r1repro.evals import contamination

    reports = contamination.check(Path(arguments.train), arguments.benchmark)
    if arguments.target:
        contamination.save(reports, Path(arguments.target))
    sys.stdout.write("".join(f"{report.line()}\n" for report in reports))


def _chat(arguments) -> int:
    from r1repro import chat, config

    names = ("temperature", "top_p", "max_tokens")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    changes = config.parse_overrides([f"{name}={text}" for name, text in given.items()])
    partner = chat.load(arguments.model, chat.settings(_seed(arguments.seed), changes))
    by_hand = not arguments.question and sys.stdin.isatty()
    questions = arguments.question or chat.typed(sys.stdout)
    refused = chat.talk(partner, questions, sys.stdout, sys.stderr, echo=not by_hand)
    return 2 if refused and not by_hand else 0


def _teach(arguments) -> None:
    from r1repro import config
    from r1repro.stages import teacher

    own = {"url": arguments.url, "model": arguments.model, "questions": arguments.questions}
    settings = config.teach(config.parse_overrides(arguments.set) | own)
    limits = {
        "at_once": _whole("--at-once", arguments.at_once),
        "tries": _whole("--tries", arguments.tries),
        "timeout_s": _whole("--timeout", arguments.timeout),
    }
    summary = teacher.ask(settings, arguments.target, **limits)
    shown = {name: summary[name] for name in ("outputs", "cut at the cap", "prompt_tokens", "completion_tokens")}
    sys.stdout.write(f"{arguments.target}: {json.dumps(shown)}\n")


def _judge(arguments) -> None:
    from r1repro.evals import catalogue, judge, judging

    catalogue.check_column(arguments.beside)
    if not (arguments.target or Path(arguments.outputs).is_dir()):
        raise Refusal("no folder for the verdicts: give one with --out")
    target = arguments.target or Path(arguments.outputs, judging.FOLDER)
    prices = (_price("--price-in", arguments.price_in), _price("--price-out", arguments.price_out))
    limits = {
        "at_once": _whole("--at-once", arguments.at_once),
        "tries": _whole("--tries", arguments.tries),
        "timeout_s": _whole("--timeout", arguments.timeout),
        "least_tokens": _whole("--least-tokens", arguments.least_tokens),
    }
    task, by = judging.prepare(arguments.benchmark, arguments.outputs), None
    if task.verdicts is None:
        if not (arguments.url and arguments.model):
            raise Refusal(f"{task.source} holds no verdicts: give --url and --model of a judge")
        logprobs = not arguments.no_logprobs
        by = judge.Judge(arguments.url, arguments.model, target, logprobs=logprobs, **limits)
        to_ask = judging.forecast(task, by)
        sys.stdout.write(f"{to_ask.told(prices)}\n")
        if to_ask.requests and not arguments.yes:
            sys.stdout.write("nothing is asked yet: add --yes to have it judged\n")
            return
        sys.stdout.flush()
    for line in judging.lines(task.benchmark, judging.run(task, target, by), arguments.beside):
        sys.stdout.write(f"{line}\n")


def _price(name: str, text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        of = "an hour of a GPU costs, such as 2" if name == "--price" else "a million tokens cost, such as 10"
        raise Refusal(f"{name} {text!r} is no price: give what {of}")
    return price


def _export(arguments) -> None:
    from r1repro import chat
    from r1repro.engine import export

    done = export.export(
        chat.find(arguments.model), arguments.to, dtype=arguments.dtype, base=arguments.base,
        evaluation=arguments.evaluation, max_positions=_whole("--max-positions", arguments.max_positions),
    )  # fmt: skip
    sys.stdout.write(f"{done}\n")


def _export_swe_bench(arguments) -> None:
    from r1repro.evals import exports

    sys.stdout.write(f"{exports.export_run(arguments.source, arguments.to, arguments.name)}\n")


def _export_aider(arguments) -> None:
    from r1repro.evals import exports

    sys.stdout.write(f"{exports.save_aider(arguments.to, arguments.model, arguments.url)}\n")


def _plan(arguments) -> int:
    from r1repro import config
    from r1repro.engine import forecast, paper_plan

    price = _price("--price", arguments.price)
    if arguments.tier == "paper" and not arguments.student:
        if arguments.gpu or arguments.gpus or arguments.set or arguments.stage != "rl":
            raise Refusal("tier paper plans the paper's own runs, on its own GPUs: give --student to plan another")
        sys.stdout.write("".join(f"{line}\n" for line in paper_plan.lines(price)))
        return 0
    names = ("gpus", "gpus_per_node", "mean_tokens", "examples")
    given = {
        name: None if text is None else _whole(f"--{name.replace('_', '-')}", text)
        for name, text in ((name, getattr(arguments, name)) for name in names)
    }
    setting = forecast.setting(
        arguments.tier, arguments.student, arguments.stage, gpus=given["gpus"], per_node=given["gpus_per_node"],
        gpu=arguments.gpu, overrides=config.parse_overrides(arguments.set), mean_tokens=given["mean_tokens"],
        examples=given["examples"],
    )  # fmt: skip
    title = f"{arguments.stage} at tier {arguments.tier}"
    sys.stdout.write("".join(f"{line}\n" for line in list(forecast.lines(setting, title, price))))
    return 0 if forecast.fits(setting) else 1


def _compare(arguments) -> None:
    from r1repro import compare

    for line in compare.lines(compare.side_by_side(arguments.first, arguments.second)):
        sys.stdout.write(f"{line}\n")


def _grade(arguments) -> None:
    from r1repro import grade
    from r1repro.run import read_lines

    target = grade.grade_file(Path(arguments.source), Path(arguments.target))
    for line in grade.summary(read_lines(target)):
        sys.stdout.write(f"{line}\n")


def _report(arguments) -> None:
    from r1repro import config, report
    from r1repro.run import out_folder

    config.check_tier(arguments.tier)
    sys.stdout.write(f"{report.build(arguments.tier, out_folder()) / 'index.html'}\n")


def _publish(arguments) -> None:
    from r1repro import config, report
    from r1repro.run import out_folder

    config.check_tier(arguments.tier)
    sys.stdout.write(f"{report.publish(arguments.tier, out_folder(), Path('reports'))}\n")


def _pack(arguments) -> None:
    from r1repro import config, pack
    from r1repro.run import default_folder

    config.check_tier(arguments.tier)
    seed = _seed(arguments.seed)
    target = Path(arguments.to or f"reports/{arguments.tier}/seeds/seed-{seed}.tar.xz")
    sys.stdout.write(f"{pack.pack(default_folder(arguments.tier, seed), target)}\n")


def _unpack(arguments) -> None:
    from r1repro import config, pack
    from r1repro.run import out_folder

    config.check_tier(arguments.tier)
    for file in arguments.files:
        sys.stdout.write(f"{pack.unpack(file, out_folder() / arguments.tier)}\n")


def _leaderboard(arguments) -> None:
    from r1repro import config, leaderboard
    from r1repro.run import out_folder

    config.check_tier(arguments.tier)
    file, readme = Path("bench", "results", "leaderboard.json"), Path("README.md")
    sys.stdout.write(leaderboard.table(leaderboard.join(arguments.tier, out_folder(), arguments.name, file, readme)))


def _base(arguments) -> None:
    from r1repro import config
    from r1repro.run import out_folder
    from r1repro.stages import pretrain
    from r1repro.tinyworld import base

    for name in arguments.model or base.SHAPES:
        place = Path(arguments.run_dir or out_folder() / "base", name)
        sys.stdout.write(f"{pretrain.make_base(config.pretrain(name), place)}\n")


def _seed(text: str) -> int:
    return _whole("seed", text)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise Refusal(f"{name} {text!r} is not a whole number from 0 up: give one such as 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
