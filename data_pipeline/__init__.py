"""From text files to the training stream: sources, tokenizer, shards, packing, loader."""
