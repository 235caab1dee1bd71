"""The paper's benchmarks: questions, prompts, metrics."""
