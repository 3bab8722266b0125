"""The published recipe of BERT: sequences of 128 tokens, then of 512.

    python -m bert_jax.pretrain --config=configs/pretrain.py:base \
        --config.data.corpus="tfds:wikipedia/20230601.en,text:books/*.txt" \
        --config.text.vocab=vocab.txt --workdir=runs/base
    python -m bert_jax.pretrain --config=configs/pretrain.py:base,both,fast ...

Sizes: tiny, mini, small, medium, base, large, xlarge. Options: `both` (two phases in a
run), `phase=2` (the second alone, from the weights in --config.init_from), `lamb`, and
`fast`: no attention probability is dropped, as in MosaicBERT (arXiv:2312.17482) and
ModernBERT, so that a fused kernel computes them where there is one, and layers are
unrolled, which takes minutes to compile for a TPU. docs/performance.md tells what it
gains.
Devlin et al. 2018 (arXiv:1810.04805), appendix A.2: 1,000,000 steps of 256 rows, the
first 90 % with 128 tokens, Adam 1e-4 with 10,000 steps of warm-up; on 4 to 16 Cloud
TPUs, four days. With `lamb`, the large batches of You et al. 2019 (arXiv:1904.00962):
65,536 rows, then 32,768, in 76 minutes on 1,024 TPU v3 chips. `xlarge` has the 1.3 B
parameters of Shoeybi et al. 2019 (arXiv:1909.08053, table 4) and their batch of 1,024
rows; the state of the optimizer is cut over all devices. They put LayerNorm before each
half of a layer, because large models with BERT's order became unstable (section 5.3);
configs/pretrain_modern.py:xlarge does, too. Not run at full length here.
"""

from bert_jax.config import pretraining

OPTIONS = ("tiny", "mini", "small", "medium", "base", "large", "xlarge")


def get_config(options: str = "base"):
    size, *rest = options.split(",")
    unknown = set(rest) - {"both", "phase=2", "lamb", "fast"}
    if (
        size not in OPTIONS
        or unknown
        or ("both" in rest and set(rest) - {"both", "fast"})
    ):
        raise ValueError(
            f"configs/pretrain.py:{options}: write a size of {', '.join(OPTIONS)}, and "
            "after commas, if wanted, fast, and both alone, or phase=2 and lamb"
        )
    config = pretraining.default()
    config.model.size = size
    config.run.dtype = "bfloat16"  # float32 parameters, losses and statistics
    config.run.batch_size = 256
    config.run.num_train_steps = 900_000
    config.data.max_predictions_per_seq = 20
    if "phase=2" in rest or "both" in rest:
        config.data.max_seq_length = 512
        config.data.max_predictions_per_seq = 80
        config.run.num_train_steps = 100_000
    if "both" in rest:
        config.data.first_seq_length = 128
        config.data.first_steps_share = 0.9
        config.run.num_train_steps = 1_000_000
    if "fast" in rest:
        config.model.attention_probs_dropout_prob = 0.0
        config.run.unroll = -1
    if size == "xlarge":
        config.mesh.data, config.mesh.fsdp = 1, -1
        config.run.batch_size = 1_024
    if "lamb" in rest:
        _use_lamb(config, second="phase=2" in rest)
    return config


def _use_lamb(config, *, second: bool) -> None:
    """Sets the large batches, with the rates that others published for them."""
    config.optimizer.name = "lamb"
    config.run.batch_size = 32_768 if second else 65_536
    config.run.num_train_steps = 1_563 if second else 7_038
    config.optimizer.warmup_steps = 200 if second else 2_000
    config.optimizer.learning_rate = 4e-3 if second else 6e-3
