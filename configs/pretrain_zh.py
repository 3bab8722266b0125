"""The published recipe in Chinese, with whole words masked (arXiv:1906.08101).

    pip install -e ".[data,zh]"
    python -m bert_jax.pretrain --config=configs/pretrain_zh.py:base \
        --config.data.corpus="tfds:wikipedia/20230601.zh" --workdir=runs/zh

Every Chinese character is a word piece of its own, so words come from a segmenter:
jieba here, or `--config.text.segmenter=corpus` for a corpus that has them. Sizes: tiny,
mini, small, medium, base, large. Options: `phase=2` (512 tokens), and `fast`, which is
that of configs/pretrain.py. Cui et al. 2019 train 100,000 steps of 2,560 rows of 128
tokens, then 100,000 of 384 rows of 512 tokens, with LAMB; this is AdamW. Not run at
full length here.
"""

from bert_jax.config import pretraining

OPTIONS = ("tiny", "mini", "small", "medium", "base", "large")


def get_config(options: str = "base"):
    size, *rest = options.split(",")
    if size not in OPTIONS or set(rest) - {"phase=2", "fast"}:
        raise ValueError(
            f"configs/pretrain_zh.py:{options}: write a size of {', '.join(OPTIONS)}, "
            "and after commas, if wanted, phase=2 and fast"
        )
    config = pretraining.default()
    config.model.size = size
    config.text.vocab_size = 21_128
    config.text.segmenter = "jieba"
    config.data.whole_word = True
    config.data.max_predictions_per_seq = 20
    config.run.dtype = "bfloat16"
    config.run.batch_size = 2_560
    config.run.num_train_steps = 100_000
    if "fast" in rest:
        config.model.attention_probs_dropout_prob = 0.0
        config.run.unroll = -1
    if "phase=2" in rest:
        config.data.max_seq_length = 512
        config.data.max_predictions_per_seq = 80
        config.run.batch_size = 384
    return config
