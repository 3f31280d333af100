"""``pipeline("fill-mask")`` of an exported denoiser: [MASK] is read out of its text.

The tokenizer itself reads no special token out of a text, as in training. transformers takes
this class from ``custom_pipelines`` of config.json.
"""

import copy
from typing import Any

from transformers import FillMaskPipeline


class TemplatePipeline(FillMaskPipeline):
    """transformers' own, with a tokenizer that reads special tokens."""

    tokenizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A copy: elsewhere the user's tokenizer goes on as it was.
        reading: Any = copy.deepcopy(self.tokenizer)
        reading.split_special_tokens = False
        self.tokenizer = reading
