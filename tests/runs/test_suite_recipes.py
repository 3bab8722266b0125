"""What a suite is told: recipes that can be parsed, and what is refused."""

import pytest
import tiny_suites

from bert_jax import errors, suite
from bert_jax.runs import suite as suite_runs
from bert_jax.tasks import class_names


@pytest.mark.parametrize("name", ["glue", "clue"])
def test_every_recipe_can_be_parsed(name, tmp_path):
    config = tiny_suites.module(name).get_config()
    config.init_from = "FOLDER"
    plan = suite_runs.parse(config)
    assert plan.tasks == plan.suite.tasks and len(plan.tasks) in (9, 10)
    assert f"--config=configs/{name}.py" in tiny_suites.module(name).__doc__
    for task in plan.tasks:
        sources = [*task.files, *([task.tfds] if task.tfds else [])]
        for files in sources:
            recipe = {**files.recipe, "data.train": files.train}
            settings = plan.settings(task, recipe)
            assert settings.sweep.seeds == 3
            class_names.configured(settings.data.labels)
            assert f"dev/{settings.run.keep_best}" == task.scores[0].metric
        for score in task.scores:
            assert len(score.published) in (0, len(plan.suite.models))
            for figure in score.published:
                assert 0 < float(figure) < 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": "cola,colas"}, "tasks has 'colas': GLUE has cola, sst2"),
        ({"folder": "nowhere"}, "folder is nowhere"),
        ({"data__train": "a.tsv"}, "data.train is set, and every task"),
        ({"sweep__folds": 3}, "sweep.folds is set, and the tasks of a suite"),
        ({"run__batch_size": 0}, "run.batch_size is 0"),
    ],
)
def test_what_a_suite_cannot_have_is_refused(tmp_path, changes, message):
    with pytest.raises(errors.InputError, match=message):
        suite.run(tiny_suites.config("glue", tmp_path, **changes), tmp_path / "run")
