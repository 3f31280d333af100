"""Data pipeline, from text files to the training stream: sources, tokenizer, shards, packing."""
