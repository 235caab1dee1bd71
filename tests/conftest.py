"""Property tests draw the same cases every time, and no test fails because the machine was busy.

`tests/` is put on the path, so that tests can import `models`, their shared tiny models, and name its rewards.
"""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """Folder of a random base model that takes milliseconds a step; tests read it and never write into it."""
    import models

    return models.save_base(tmp_path_factory.mktemp("base"))
