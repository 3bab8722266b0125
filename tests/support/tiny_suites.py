"""Configs and data of suites, small enough for tests."""

import importlib.util
import json
import random
from pathlib import Path

import tiny_tasks

CLASSES = ("entailment", "neutral", "contradiction")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = {
    "init_from": "none",
    "model.size": "tiny",
    "model.hidden_size": 32,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 4,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 32,
    "data.max_seq_length": 32,
    "data.num_lengths": 1,
    "mesh.data": 1,
    "run.batch_size": 8,
    "run.num_train_steps": 2,
    "run.eval_every_steps": 2,
    "run.save_every_steps": 2,
    "optimizer.learning_rate": 1e-2,
}


def module(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def config(name, place, **changes):
    made = module(name).get_config()
    vocab = str(tiny_tasks.write_vocab(place))
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    values = {**SMALL, "text.vocab": vocab, "folder": str(place), "sweep.seeds": 1}
    made.update_from_flattened_dict({**values, **keys})
    return made


def table(path, header, rows):
    path.parent.mkdir(exist_ok=True)
    lines = [header, *rows] if header else rows
    path.write_text("".join("\t".join(map(str, x)) + "\n" for x in lines))


def json_lines(path, records, as_list=False):
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    text = json.dumps(records, ensure_ascii=False) if as_list else "\n".join(lines)
    path.write_text(text, encoding="utf-8")


def sentence(rng):
    return " ".join(rng.choices(tiny_tasks.WORDS, k=4))


def write_glue(place):
    """Writes CoLA, STS-B and MNLI as GLUE's archives have them."""
    rng = random.Random(0)
    for split, count in (("train", 24), ("dev", 10)):
        rows = [
            ("gj04", n % 2, "*" if n % 3 else "", sentence(rng)) for n in range(count)
        ]
        table(place / "CoLA" / f"{split}.tsv", None, rows)
        head = "index genre filename year old_index source1 source2 sentence1 sentence2"
        rows = [
            (n, "g", "f", 2012, n, "none", "none", sentence(rng), sentence(rng), s)
            for n, s in enumerate(rng.choices((0.0, 1.8, 3.25, 5.0), k=count))
        ]
        table(place / "STS-B" / f"{split}.tsv", [*head.split(), "score"], rows)
    table(
        place / "CoLA" / "test.tsv", ["index", "sentence"], [(0, "a cat"), (1, "sat")]
    )
    rows = [(n, "g", "f", 2012, n, "none", "none", "a cat", "sat") for n in range(3)]
    table(place / "STS-B" / "test.tsv", head.split(), rows)
    _write_mnli(place, rng)


def _write_mnli(place, rng):
    head = (
        "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse "
        "sentence1_parse sentence2_parse sentence1 sentence2"
    ).split()

    def rows(count, labels):
        return [
            (n, n, f"{n}e", "fiction", *["( )"] * 4, sentence(rng), sentence(rng))
            + tuple([CLASSES[n % 3]] * labels)
            for n in range(count)
        ]

    folder = place / "MNLI"
    table(folder / "train.tsv", [*head, "label1", "gold_label"], rows(24, 2))
    for name, count in (("matched", 9), ("mismatched", 12)):
        labels = [f"label{n}" for n in range(1, 6)]
        table(
            folder / f"dev_{name}.tsv", [*head, *labels, "gold_label"], rows(count, 6)
        )
    table(folder / "test_matched.tsv", head, rows(4, 0))


def write_clue(place):
    """Writes OCNLI, CLUEWSC2020 and C3 as CLUE's archives have them."""
    pairs = [
        {"sentence1": "那猫跑", "sentence2": "那狗坐", "label": label, "id": 7}
        for label in (*CLASSES, "-") * 4
    ]
    folder = place / "ocnli_public"
    json_lines(folder / "train.50k.json", pairs)
    json_lines(folder / "dev.json", pairs[:7])
    asked = [{"sentence1": "那猫", "sentence2": "狗", "id": n} for n in (11, 12)]
    json_lines(folder / "test.json", asked)
    target = {
        "span1_text": "猫",
        "span1_index": 1,
        "span2_text": "那",
        "span2_index": 3,
    }
    spans = [
        {"target": target, "idx": n, "label": label, "text": "那猫坐那跑"}
        for n, label in enumerate(("true", "false") * 8)
    ]
    json_lines(place / "wsc" / "train.json", spans)
    json_lines(place / "wsc" / "dev.json", spans[:6])
    json_lines(place / "wsc" / "test1.1.json", [{**x, "label": ""} for x in spans[:2]])
    json_lines(place / "wsc" / "test1.0.json", [{**x, "label": ""} for x in spans[:3]])
    for kind, count in (("d", 5), ("m", 3)):
        ask = {"question": "那?", "choice": ["猫", "狗", "跑"], "answer": "狗"}
        documents = [
            [["那狗", "跑"], [ask, {**ask, "choice": ["狗", "好"]}], "1"]
        ] * count
        for split in ("train", "dev"):
            json_lines(place / "c3" / f"{kind}-{split}.json", documents, as_list=True)
    ask = {"question": "那?", "choice": ["猫", "狗"], "answer": "", "id": 33}
    json_lines(place / "c3" / "test1.1.json", [[["那狗"], [ask], "1"]], as_list=True)
