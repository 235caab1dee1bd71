"""What `engine.plan` foretells beside what this machine takes; into `bench/results/cpu-plan.json`.

Random models of small shapes, all weights in float32 or LoRA: seconds of an update and of a sampling, and most bytes
of tensors that either holds.  The rates of the machine are fitted on some configurations (`FIT`) and foretell others
(`HELD_OUT`), which span ten times in size, output length and batch and are used for nothing else.  On a CPU give it one
thread and one core: ``OMP_NUM_THREADS=1 taskset -c 0 python -m bench.plan``.
"""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.run import RESULTS, commit
from r1repro.config import Policy
from r1repro.engine import gauge, plan
from r1repro.engine.shapes import Shape
from r1repro.run import environment, now, read_json, write_json

KINDS = {"full": Policy(), "lora": Policy(weights="lora", rank=8)}
PROMPT_TOKENS, OUTPUTS_TO_A_PROMPT = 32, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A shape, how it is held, and its work: an update of so many outputs, and the sampling of as many."""

    layers: int
    width: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int = 1024
    held: str = "full"
    outputs: int
    length: int
    """Tokens of each output."""

    micro_batches: int = 1
    recompute: bool = False

    def shape(self) -> Shape:
        return Shape(
            name="made", layers=self.layers, width=self.width, heads=self.heads, key_heads=self.key_heads,
            head_width=self.width // self.heads, inner=self.inner, vocabulary=self.vocabulary, is_tied=True,
            has_bias=True,
        )  # fmt: skip

    def update(self) -> plan.Work:
        outputs = self.outputs // self.micro_batches
        return plan.Work(
            tokens=outputs * self.length, outputs=outputs, prompts=max(1, outputs // OUTPUTS_TO_A_PROMPT),
            prompt_tokens=PROMPT_TOKENS, micro_batches=self.micro_batches, recompute=self.recompute,
        )  # fmt: skip

    def sampling(self) -> plan.Work:
        return plan.Work(
            tokens=0, outputs=0, prompts=max(1, self.outputs // OUTPUTS_TO_A_PROMPT), prompt_tokens=PROMPT_TOKENS,
            rows=self.outputs, max_tokens=self.length, mean_tokens=self.length,
        )  # fmt: skip


def made(layers: int, width: int, heads: int, key_heads: int, inner: int, outputs: int, length: int, **more: Any):
    return Configuration(
        layers=layers, width=width, heads=heads, key_heads=key_heads, inner=inner, outputs=outputs, length=length,
        **more,
    )  # fmt: skip


S, M, L, X = (3, 64, 4, 2, 208), (4, 128, 4, 2, 448), (5, 256, 8, 4, 960), (6, 384, 8, 4, 1152)

FIT = (
    made(*S, 64, 128), made(*S, 16, 256, held="lora"), made(*S, 128, 32), made(*M, 64, 64), made(*M, 8, 256),
    made(*M, 32, 96, held="lora"), made(*M, 32, 64, recompute=True), made(*M, 32, 48, micro_batches=2),
    made(*L, 16, 64), made(*L, 8, 128, held="lora"), made(*L, 32, 32), made(*L, 8, 192), made(*X, 8, 48),
    made(*X, 16, 32, held="lora"), made(8, 96, 4, 4, 256, 16, 128), made(2, 256, 4, 2, 512, 16, 64, vocabulary=4096),
)  # fmt: skip

HELD_OUT = (
    made(3, 96, 4, 2, 320, 96, 64),
    made(8, 128, 4, 2, 384, 16, 240),
    made(5, 160, 5, 5, 512, 32, 48, held="lora"),
    made(4, 192, 6, 2, 640, 24, 128),
    made(6, 320, 8, 4, 960, 8, 96),
    made(4, 384, 8, 8, 1344, 16, 24, held="lora"),
    made(4, 128, 8, 2, 512, 64, 32, recompute=True),
    made(6, 224, 7, 7, 704, 16, 64, micro_batches=2),
)
"""Sizes, lengths and batches: each from least to most at least ten times."""

PHASES = ("update", "sampling")


def foretold_bytes(one: Configuration, phase: str) -> float:
    """What is there all the time, and what an update or a sampling takes beyond it."""
    shape, held = one.shape(), KINDS[one.held]
    static = plan.static_bytes(shape, held, one.update())
    if phase == "update":
        parts = plan.update_bytes(shape, held, one.update())
    else:
        static.pop("optimiser")
        parts = plan.sampling_bytes(shape, held, one.sampling())
    return sum(static.values()) + sum(parts.values())


def cost(one: Configuration, phase: str) -> plan.Cost:
    if phase == "update":
        return plan.update_cost(one.shape(), KINDS[one.held], one.update())
    return plan.sampling_cost(one.shape(), KINDS[one.held], one.sampling())


def measured(one: Configuration, phase: str, device: str, times: int) -> dict[str, float]:
    """Seconds, the shortest of some, and most bytes of tensors, the model's own among them."""
    make = gauge.update if phase == "update" else gauge.sampling
    asked = (one.shape(), KINDS[one.held], getattr(one, phase)(), device)
    gc.collect()  # what goes while it is counted would be taken off
    held = gauge.peak_bytes(lambda: make(*asked)(), device)
    return {"seconds": gauge.seconds(make(*asked), device, times), "bytes": held}


def fit(rows: Iterable[dict[str, Any]]) -> dict[str, plan.Rates]:
    """Rates of each phase, from the rows that are there to fit alone."""
    rows, found = [row for row in rows if row["role"] == "fit"], {}
    for phase in PHASES:
        of = [(cost(Configuration(**row["configuration"]), phase), row[phase]["measured"]["seconds"]) for row in rows]
        found[phase] = plan.fitted(*map(list, zip(*of, strict=True)))
    return found


def compared(rows: Iterable[dict[str, Any]], rates: dict[str, plan.Rates]) -> list[dict[str, Any]]:
    """Each row with what is foretold of it, and by how much that is off."""
    found = []
    for row in rows:
        one, new = Configuration(**row["configuration"]), dict(row)
        for phase in PHASES:
            was = row[phase]["measured"]
            says = {"seconds": rates[phase].seconds(cost(one, phase)), "bytes": foretold_bytes(one, phase)}
            off = {key: says[key] / was[key] - 1 for key in says}
            new[phase] = {"measured": was, "foretold": says, "error": off}
        found.append(new)
    return found


def lines(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    heads = "".join(f"{phase + ', s':>14}{'off':>6}{'bytes off':>11}" for phase in PHASES)
    yield f"{'':9}{'weights':>9}{'held':>6}{'outputs':>8}{'length':>7}{heads}"
    for row in rows:
        one = Configuration(**row["configuration"])
        cells = "".join(
            f"{row[p]['measured']['seconds']:14.3f}{row[p]['error']['seconds']:+6.0%}{row[p]['error']['bytes']:+11.0%}"
            for p in PHASES
        )
        size = one.shape().parameters / 1e6
        yield f"{row['role']:9}{size:8.2f}M{one.held:>6}{one.outputs:8}{one.length:7}{cells}"
    for role in ("fit", "held out"):
        for key in ("seconds", "bytes"):
            off = [abs(row[p]["error"][key]) for row in rows for p in PHASES if row["role"] == role]
            yield f"{role}: {key} off by {statistics.median(off):.1%} (median), {max(off):.1%} at most"


def machine(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.processor() or platform.machine()
    return environment() | {"device": device, "name": name, "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plan", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--times", type=int, default=5, help="runs of which the shortest counts")
    parser.add_argument("--again", action="store_true", help="measure nothing: foretell what was measured once more")
    asked = parser.parse_args()
    file = RESULTS / f"{asked.device.partition(':')[0]}-plan.json"
    if asked.again:
        found = read_json(file)
        rows = found["rows"]
    else:
        rows = []
        for role, configurations in (("fit", FIT), ("held out", HELD_OUT)):
            for one in configurations:
                began, row = time.monotonic(), {"role": role, "configuration": asdict(one)}
                for phase in PHASES:
                    row[phase] = {"measured": measured(one, phase, asked.device, asked.times)}
                rows.append(row)
                print(f"{role} {len(rows)} of {len(FIT) + len(HELD_OUT)}: {time.monotonic() - began:.0f} s", flush=True)
        found = {"when": now(), "commit": commit(), "machine": machine(asked.device), "times": asked.times}
    rates = fit(rows)
    rows = compared(rows, rates)
    write_json(file, found | {"rates": {phase: asdict(of) for phase, of in rates.items()}, "rows": rows})
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main()
