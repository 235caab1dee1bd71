"""Devices as their makers print them, and what share of that is reached: two tables, each number with its source.

A share is *measured* (by a command of this repository), *published* (by others, of their own software) or *assumed*
(ours).  None is solved from a time that a plan is compared with.  A gigabyte of a data sheet is read as 10^9 bytes.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from r1repro.records import Refusal

FOLDER = Path(__file__).parent
"""Of ``devices.csv`` and ``assumptions.csv``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU; rates are those of its maker's data sheet, per second, links one way."""

    name: str
    title: str

    flop: float
    """Operations of dense products in half precision, accumulated in single."""

    memory: float
    """Bytes."""

    bandwidth: float
    """Bytes of its own memory."""

    link: float
    """Bytes to the other GPUs of a node, to all of them together."""

    network: float
    """Bytes to other nodes: its share of the node's network cards."""

    host: float
    """Bytes to the memory of the CPU."""

    dtype: str
    """Half precision that it computes in."""

    source: str
    network_source: str


@dataclass(frozen=True, slots=True)
class Share:
    """A quantity that no data sheet has: the worst and the best that is assumed, or what was found."""

    low: float
    high: float
    kind: str
    """``measured``, ``published`` or ``assumed``."""

    source: str


@cache
def devices() -> dict[str, Device]:
    """All of them by name.

    >>> devices()["h100"].flop / devices()["h100"].bandwidth
    295.3731343283582
    """
    keys = dict(flop="flop_per_s", memory="memory_bytes") | {
        key: f"{key}_bytes_per_s" for key in ("bandwidth", "link", "network", "host")
    }
    text = ("name", "title", "dtype", "source", "network_source")
    return {
        row["name"]: Device(**{key: float(row[of]) for key, of in keys.items()}, **{key: row[key] for key in text})
        for row in _rows("devices.csv")
    }


def device(name: str) -> Device:
    """The device of a name.

    Raises:
        Refusal: it is not in the table.

    >>> device("H800").link
    200000000000.0
    """
    if name.lower() not in devices():
        raise Refusal(f"no data of a GPU called {name!r}: choose one of {', '.join(devices())}")
    return devices()[name.lower()]


def share(name: str, quantity: str) -> Share:
    """What was measured of a device, or else what we assume of any.

    >>> share("h100", "flop_share").kind, share("cpu", "flop_share").kind
    ('assumed', 'measured')
    """
    measured = _share(name, quantity)
    return measured if measured and measured.kind == "measured" else _share("any", quantity)


def published(name: str, quantity: str) -> Share | None:
    """What others published of a device, to be shown beside what we assume.

    >>> published("h800", "flop_share").high
    0.3894
    """
    found = _share(name, quantity)
    return found if found and found.kind == "published" else None


@cache
def _share(name: str, quantity: str) -> Share | None:
    for row in _rows("assumptions.csv"):
        if (row["device"], row["quantity"]) == (name, quantity):
            return Share(float(row["low"]), float(row["high"]), row["kind"], row["source"])
    return None


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
