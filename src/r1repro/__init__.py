"""DeepSeek-R1, reproduced: every stage of the paper as code to read and a run to watch, on a laptop or a cluster.

The paper is the vocabulary, one function holds each equation, and one dial (the tier) sets the size.  Start with
`notebooks/00_map.ipynb`, or read `paper`, `records`, `algo/grpo`, `rewards/format`, `rewards/accuracy`, `stages/rl`.
"""

__version__ = "0.1.0"
