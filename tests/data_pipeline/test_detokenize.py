"""Tokenised lines of published sets, and how they read when their tokenisation is undone."""

import pytest

from data_pipeline.detokenize import DETOKENIZERS

LINES = {
    "wikitext": [
        ("a blue @-@ eyed , 1 @,@ 000 @.@ 5 m tall man", "a blue-eyed, 1,000.5 m tall man"),
        (" = Robert Boulter = \n", " = Robert Boulter =\n"),
        (" = = Career = = \n", " == Career ==\n"),
        (" = = = 2000 to 2005 = = = \n", " === 2000 to 2005 ===\n"),
        (" = = = = Notes = = = = \n", " ==== Notes ====\n"),
        ('the play " Herons " ( 2001 ) ; it ran', 'the play "Herons" (2001); it ran'),
        ("the dogs ' house", "the dogs' house"),
        ("the owner 's [ sic ] house", "the owner's [sic] house"),
        ("at 20 ° C . N men", "at 20°C. 1 men"),
        ("Why ? Yes ! So : it", "Why? Yes! So: it"),
        ("ends here .", "ends here ."),
    ],
    "ptb": [
        ("mr. vinken is N years old", "mr. vinken is 1 years old"),
        ("up N N to $ N and # N", "up 1 1 to $1 and # N"),
        ("up # N more", "up #1 more"),
        ("the <unk> do n't buy its traders ' stock", "the ? don't buy its traders' stock"),
        ("the company 's and\\/or", "the company's and/or"),
    ],
    "lm1b": [
        ("He said , it 's over .", "He said, it's over."),
        ("Really ? Yes ! See http : / / a.b / c", "Really? Yes! See http://a.b/c"),
        ("Is it ?", "Is it?"),
        ("It costs $ 5 ( or £ 4 ) ; fine", "It costs $5 (or £4); fine"),
        ('the " big one " came', 'the "big one" came'),
    ],
    "lambada": [("  “ hi , ” she said ", '\n" hi , " she said')],
    "ag_news": [("Oil , up\\Again #39;s", "Oil , up\\Again #39;s")],
    "pubmed": [
        ("the dose ( 5 mg ) , see [ 3 ] , was given .", "the dose (5 mg), see [3], was given."),
        ("is it ? yes .\n", "is it? yes.\n"),
    ],
    "arxiv": [("we study @xmath0 , and / or xcite .", "we study @xmath0, and/or xcite.")],
}


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [(name, *pair) for name, pairs in LINES.items() for pair in pairs],
)
def test_known_lines(name: str, line: str, text: str) -> None:
    assert DETOKENIZERS[name](line) == text


def test_every_set_has_known_lines() -> None:
    assert set(LINES) == set(DETOKENIZERS)


@pytest.mark.parametrize("name", DETOKENIZERS)
def test_plain_words_stay(name: str) -> None:
    assert DETOKENIZERS[name]("plain words, as they are.").strip() == "plain words, as they are."
