"""The only code that imports DeepSpeed or Megatron-core."""
