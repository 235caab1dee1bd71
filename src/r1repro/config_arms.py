"""Settings of what `CLAIMS=all` runs beside the main line: controls, and claims that need runs of their own.

An *arm* is a model that is trained or asked otherwise than one of the main line, to be compared with it.  Everything
that an arm does not change is the main line's at the same tier and seed: see `config.r1_zero` and `config.r1`.
"""

from typing import Any

TIER_ARMS: dict[str, dict[str, dict[str, Any]]] = {"smoke": {}, "cpu": {}}
"""Tier -> part -> what an arm has of its own there."""
