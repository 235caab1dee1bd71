"""Machinery: the policy, its sampler, ranks and checkpoints.  A knob here changes no gradient."""
