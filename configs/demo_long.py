"""The demo for longer: rows of 32 tokens first, then rows of 128.

    python -m bert_jax.pretrain --config=configs/demo_long.py:first \
        --workdir=runs/demo_long_first
    python -m bert_jax.pretrain --config=configs/demo_long.py:second \
        --config.init_from=runs/demo_long_first --workdir=runs/demo_long
    python -m bert_jax.finetune --config=configs/demo_finetune.py \
        --config.init_from=runs/demo_long --workdir=runs/demo_long_finetune

Two CPU cores: about an hour, then ten minutes. As BERT did (arXiv:1810.04805, appendix
A.2) most steps see short rows, and the last ones teach the positions behind: reviews
have up to 128 tokens and more. The settings that are not named here are those of
`configs/demo_bert.py`.
"""

from pathlib import Path

from bert_jax.config import file as config_file

OPTIONS = ("first", "second")


def get_config(phase: str):
    if phase not in OPTIONS:
        raise ValueError(f"configs/demo_long.py:{phase}: write {' or '.join(OPTIONS)}")
    config = config_file.load(str(Path(__file__).with_name("demo_bert.py")))
    config.run.num_train_steps = 50_000
    config.run.eval_every_steps = 2_000
    config.run.save_every_steps = 2_000
    if phase == "second":
        config.model.size = "init_from"
        config.text.vocab = "init_from"
        config.data.max_seq_length = 128
        config.run.batch_size = 16
        config.optimizer.learning_rate = 1e-3
        config.run.num_train_steps = 6_000
    return config
