"""The embedded default: questions, worked solutions, a corpus, a tokenizer and a base model that need no download."""
