"""`python -m bert_jax COMMAND`, as the command `bert_jax`."""

from bert_jax import cli

if __name__ == "__main__":
    cli.main()
