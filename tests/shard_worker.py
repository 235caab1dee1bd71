"""One worker of `test_shards`, as a process that starts in a tenth of a second: it imports no torch.

`python tests/shard_worker.py <folder>` makes rows of a job until all are there.
"""

import hashlib
import sys
import time
from pathlib import Path

from r1repro.engine.shards import Job

ROWS, SIZE, LEASE_S, ITEM_S = 80, 3, 0.4, 0.03


def row(item: int) -> dict:
    return {"item": item, "text": f"次 {hashlib.sha256(str(item).encode()).hexdigest()[: item % 60]}"}


def job(folder: Path, **changes) -> Job:
    return Job.open(folder, **dict(of={"seed": 0}, rows=ROWS, size=SIZE, lease_s=LEASE_S) | changes)


def slowly(items: range):
    for item in items:
        time.sleep(ITEM_S)
        yield row(item)


if __name__ == "__main__":
    with job(Path(sys.argv[1])) as work:
        for items in work.take():
            work.keep(slowly(items))
