"""What the years after BERT found, each in one line: ModernBERT's recipe.

    python -m bert_jax.pretrain --config=configs/pretrain_modern.py:base \
        --config.data.corpus="tfds:wikipedia/20230601.en,text:books/*.txt" \
        --config.text.vocab=vocab.txt --workdir=runs/modern
    python -m bert_jax.convert --input=runs/modern --output=exported --to=huggingface
    python scripts/bench/modern.py

Sizes: tiny, base, large, and xlarge, which nobody published, of 1.3 B parameters.
Warner et al. 2024 (arXiv:2412.13663), section 2, but with a batch of a million tokens
in place of up to five million, and a hundred billion tokens in all in place of 1.7
trillion. Rows may be longer later, up to model.max_position_embeddings. The export is a
`modernbert` of transformers. Not run at full length here.

The script measures what each line does to the time of a step. On two CPU cores (tiny, 2
rows of 256 tokens) a token takes 1.09 times as long with biases and 1.06 with dropout
0.1; 0.82 with rows of 64, 0.85 in float32, 0.92 with 15 % masked and 0.94 with whole
rows of one text. The rest is within the noise of 0.05: on CPUs near layers compute all
pairs of tokens, too (docs/performance.md).
"""

from bert_jax.config import pretraining

# Layers, width, heads, width of the GeGLU: deeper and narrower than BERT's.
OPTIONS = {
    "tiny": (4, 128, 2, 192),
    "base": (22, 768, 12, 1152),
    "large": (28, 1024, 16, 2624),
    "xlarge": (24, 2048, 32, 5504),
}


def get_config(size: str = "base"):
    if size not in OPTIONS:
        raise ValueError(
            f"configs/pretrain_modern.py:{size}: write a size of {', '.join(OPTIONS)}"
        )
    config = pretraining.default()
    layers, width, heads, inner = OPTIONS[size]
    config.model.num_hidden_layers = layers
    config.model.hidden_size = width
    config.model.num_attention_heads = heads
    config.model.intermediate_size = inner
    config.model.model_type = "modernbert"  # pre-norm, rotary positions and GeGLU
    config.model.type_vocab_size = 0
    config.model.layer_norm_eps = 1e-5
    config.model.max_position_embeddings = 8192
    config.model.norm_bias = False  # no biases, but that of the decoder
    config.model.attention_bias = False
    config.model.mlp_bias = False
    config.model.global_attn_every_n_layers = 3  # of three layers, two see what is near
    config.model.local_attention = 128
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    config.data.objective = "full_sentences"  # no next sentences
    config.data.pack = True
    config.data.max_seq_length = 1024
    config.data.masked_lm_prob = 0.3
    config.optimizer.name = "stable_adamw"
    config.optimizer.schedule = "wsd"  # warm up, stay, and fall in the last tenth
    config.optimizer.learning_rate = 5e-4 if "large" in size else 8e-4
    config.optimizer.warmup_steps = 3_000
    config.optimizer.weight_decay = 1e-5
    config.optimizer.beta2 = 0.98
    config.run.dtype = "bfloat16"  # float32 parameters, losses and statistics
    config.run.batch_size = 1024
    config.run.num_train_steps = 100_000
    if size == "xlarge":
        config.mesh.data, config.mesh.fsdp = 1, -1
    return config
