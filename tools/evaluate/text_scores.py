"""BLEU (sacrebleu), ROUGE (rouge-score) and self-BLEU of generated texts.

BLEU does not tokenise again: texts are compared as they are, split at spaces, since the
corpora here are tokenised already; the printed signature records it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

ROUGE = ("rouge1", "rouge2", "rougeL")


@lru_cache
def _sentence_metric() -> BLEU:
    return BLEU(tokenize="none", effective_order=True)


def sentence_bleu(text: str, references: Sequence[str]) -> float:
    """BLEU of one sentence, of the n-gram orders it has, 0 to 100."""
    return float(_sentence_metric().sentence_score(text, list(references)).score)


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    """Corpus BLEU against all references of each text, and sacrebleu's signature."""
    most = max(len(own) for own in references)
    # sacrebleu takes None for the references that a text lacks, which its types do not allow.
    streams: Any = [[own[k] if k < len(own) else None for own in references] for k in range(most)]
    metric = BLEU(tokenize="none", force=True)
    score = metric.corpus_score(list(texts), streams)
    return float(score.score), str(metric.get_signature())


def rouge(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean F1 of ROUGE-1, -2 and -L, times 100; of each text against its best reference."""
    scorer = RougeScorer(list(ROUGE))
    found = [
        scorer.score_multi(list(own), text) for text, own in zip(texts, references, strict=True)
    ]
    return {name: 100 * sum(one[name].fmeasure for one in found) / len(found) for name in ROUGE}


def self_bleu(candidates: Sequence[Sequence[str]]) -> float | None:
    """Mean BLEU of each candidate against the others of its source; None if there are none.

    Zhu et al. 2018 (Texygen); lower is more diverse.
    """
    found = [
        sentence_bleu(one, [*own[:place], *own[place + 1 :]])
        for own in candidates
        if len(own) > 1
        for place, one in enumerate(own)
    ]
    return sum(found) / len(found) if found else None
