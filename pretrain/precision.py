"""The dtype of each precision that a run may compute in (``RunConfig.precision``)."""

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
