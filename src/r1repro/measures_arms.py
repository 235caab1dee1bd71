"""What the rules of claims name of the arms beside the main line, which `CLAIMS=all` runs; see `r1repro.measures`."""

from r1repro.measures import Measure

# Notebook 09: distillation beside RL

VERSUS: dict[str, Measure] = {}

# Notebook 10: unsuccessful attempts

ATTEMPTS: dict[str, Measure] = {}

# Notebook 11: the evaluation protocol

PROTOCOL: dict[str, Measure] = {}

# Notebook 14: controls of R1-Zero

CONTROLS: dict[str, Measure] = {}

MEASURES: dict[str, Measure] = VERSUS | ATTEMPTS | PROTOCOL | CONTROLS
"""What a rule in claims.csv may name, beside `measures.MEASURES` and `ledger.MEASURES`."""
