"""A small vocabulary and questions of two languages that it spells."""

from bert_jax.data.labeled import examples
from bert_jax.text.tokenizer import Tokenizer

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PIECES = (
    *("who", "where", "when", "what", "is", "was", "the", "in", "ada", "bob", "eve"),
    *("lives", "paris", "rome", "oslo", "18", "##95", "##43", "-", "(", ")", ".", "?"),
    *("red", "blue", "cat", "dog", "likes", "and", ",", "old", "sea", "##side"),
    *"谁住在哪里什么时候喜欢猫狗小明红北京上海大是的人？。，",
)
VOCABULARY = Tokenizer("wordpiece", (*_SPECIALS, *dict.fromkeys(_PIECES)), True, True)


def example(
    context: str, question: str, *answers: str, number: int = 0, start: int = -1, **more
) -> examples.QuestionExample:
    """Returns an example whose answers are the first such words of the context."""
    found = tuple(
        examples.Answer(text, context.index(text) if start < 0 else start)
        for text in answers
    )
    where = f"small.json:{number}"
    return examples.QuestionExample(
        where, f"q{number}", question, context, found, not found, **more
    )
