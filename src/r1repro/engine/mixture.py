"""DeepSeek-V3, the paper's own model: a mixture of experts counted, for memory all of them, for time the active ones.

Sources: config.json of deepseek-ai/DeepSeek-V3 for the shape; arXiv 2412.19437 sections 2.1 (attention by latents, the
experts), 3.3 (precisions) and 4.2.  `tests/test_plan.py` holds the counts against what its makers print: 671 billion
weights, 37 of them active (README of its weights), 250 GFLOP a token of training at 4,096 tokens and 70,272 bytes of
cache a token (arXiv 2505.09343, Tables 1 and 2).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Attention by latents, some dense layers, then layers of experts of which each token passes through a few."""

    layers: int
    dense_layers: int
    width: int
    heads: int
    query_rank: int
    key_rank: int
    plain_width: int
    """Of a head's queries and keys, without position."""

    rotary_width: int
    """Of the part that carries position; its keys are shared by all heads."""

    value_width: int
    inner: int
    """Width of a dense feed-forward layer."""

    expert_inner: int
    experts: int
    shared_experts: int
    chosen_experts: int
    vocabulary: int

    @property
    def attention(self) -> int:
        """Weights of the attention of a layer: queries down and up, keys and values down and up, outputs."""
        wide = self.plain_width + self.rotary_width
        queries = self.width * self.query_rank + self.query_rank * self.heads * wide
        keys = self.width * (self.key_rank + self.rotary_width)
        up = self.key_rank * self.heads * (self.plain_width + self.value_width)
        return queries + keys + up + self.heads * self.value_width * self.width

    def _weights(self, experts: int, ends: int) -> int:
        sparse, expert = self.layers - self.dense_layers, 3 * self.width * self.expert_inner
        dense = self.dense_layers * 3 * self.width * self.inner
        routed = sparse * ((experts + self.shared_experts) * expert + self.experts * self.width)
        return self.layers * self.attention + dense + routed + ends * self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All weights, but for the norms'.

        >>> round(V3.parameters / 1e9)
        671
        """
        return self._weights(self.experts, 2)

    @property
    def active(self) -> int:
        """Weights that compute for a token: the head, not the embedding, which is looked up.

        >>> round(V3.active / 1e9)
        37
        """
        return self._weights(self.chosen_experts, 1)

    @property
    def cache(self) -> int:
        """Bytes that a token leaves for those after it, in bfloat16: the latent and the rotary key of each layer.

        >>> V3.cache
        70272
        """
        return 2 * self.layers * (self.key_rank + self.rotary_width)

    def forward_flop(self, tokens: float, pairs: float) -> float:
        """Of a pass: 2 a weight and token (arXiv 2001.08361, section 2.1), and the two products of the attention."""
        a_pair = 2 * self.heads * (self.plain_width + self.rotary_width + self.value_width)
        return 2.0 * self.active * tokens + float(self.layers * a_pair) * pairs


V3 = Mixture(
    layers=61, dense_layers=3, width=7168, heads=128, query_rank=1536, key_rank=512, plain_width=128, rotary_width=64,
    value_width=128, inner=18432, expert_inner=2048, experts=256, shared_experts=1, chosen_experts=8,
    vocabulary=129_280,
)  # fmt: skip

TRAINED = 1 + 4 + 4 + 2 + 2
"""Bytes a weight in training: FP8 for products, master weight and gradient in single precision, both moments of AdamW
in bfloat16 (arXiv 2412.19437, section 3.3)."""

SERVED = 1
"""Bytes a weight while sampling: FP8."""

DECODE = 14_800 / 8
"""Tokens a second and H800 while sampling, over a day of DeepSeek's own service, contexts of 4,989 tokens on average
(github.com/deepseek-ai/open-infra-index, 202502OpenSourceWeek, day 6): published, not ours."""

SLOWEST = 20.0
"""Tokens a second of one output in that service (the same source: 20 to 22)."""

FASTEST = 1.8 / 14.76e-3
"""Tokens a second of one output at most: 14.76 ms a step where 400 Gb/s between nodes carry each token to nine experts
and back, 1.8 tokens a step by prediction of the next one (arXiv 2505.09343, sections 2.3.2 and 2.3.3)."""

SOURCES = "arXiv 2505.09343 section 2.3; github.com/deepseek-ai/open-infra-index, 202502OpenSourceWeek, day 6"
