"""Property tests draw the same cases every time, and no test fails because the machine was busy."""

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")
