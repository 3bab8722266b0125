import pytest
import small_programs

from bert_jax.planning import collectives, prediction, topology


def _needs(flops=0.0, moved=0.0, talk=()):
    return prediction.Needs(flops / 2, flops, moved, talk, 0.0, 0.0)


def _all_reduce(group, size):
    sent = collectives.sent("all-reduce", group, size)
    return collectives.Collective("all-reduce", group, 1, float(size), sent)


V5E = topology.parse("v5e:16x16")  # 197 TFLOP/s, 819 GB/s, 200 GB/s each way


@pytest.mark.parametrize(
    ("needs", "bound", "seconds", "utilisation"),
    [
        (_needs(197e12, 81.9e9), "compute", 1.0, 0.5),
        (_needs(98.5e12, 819e9), "memory", 1.0, 0.25),
        (
            _needs(9.85e12, 8.19e9, (_all_reduce(256, 100e9),)),
            "communication",
            0.996,
            0.0251,
        ),
    ],
)
def test_the_longest_is_the_step(needs, bound, seconds, utilisation):
    predicted = prediction.predict(needs, V5E)
    assert predicted.bound == bound
    assert predicted.seconds == pytest.approx(seconds, rel=1e-3)
    assert predicted.utilisation == pytest.approx(utilisation, rel=1e-2)


def test_groups_beyond_the_links_talk_over_the_network_too():
    two = topology.parse("v5e:4x4*2")
    seconds = prediction.talk_seconds(_all_reduce(32, 16e9), two)
    inside = 2 * 15 / 16 * 16e9 / 200e9
    between = 2 * 1 / 2 * 1e9 / 3.125e9  # each chip sends its sixteenth
    assert seconds == pytest.approx(inside + between)
    assert prediction.talk_seconds(_all_reduce(16, 16e9), two) == inside


def test_machines_of_eight_gpus():
    many = small_programs.topology_of(small_programs.H100, 16)
    seconds = prediction.talk_seconds(_all_reduce(16, 8e9), many)
    assert seconds == pytest.approx(2 * 7 / 8 * 8e9 / 450e9 + 1e9 / 50e9)
