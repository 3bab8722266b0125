import functools

import jax
import jax.numpy as jnp
import pytest
import small_programs
from jax.sharding import NamedSharding, PartitionSpec

from bert_jax.planning import collectives, hlo
from bert_jax.training import sharding


def _collected(*lines, devices=8):
    return collectives.collect(hlo.read(small_programs.entry(*lines)), devices)


def test_those_of_loops_count_with_all_trips():
    (one,) = collectives.collect(hlo.read(small_programs.LOOP), 8)
    assert (one.kind, one.group, one.count) == ("all-reduce", 4, 5)
    assert one.bytes == 5 * 84
    assert one.sent == 5 * 84 * 2 * 3 / 4


@pytest.mark.parametrize(
    ("kind", "size", "sent"),
    [
        ("all-reduce", 1000, 1500),
        ("all-gather", 1000, 750),
        ("reduce-scatter", 1000, 750),
        ("all-to-all", 1000, 187.5),
        ("collective-permute", 1000, 1000),
    ],
)
def test_bytes_on_the_wire_of_four_chips(kind, size, sent):
    assert collectives.sent(kind, 4, size) == sent


@pytest.mark.parametrize(
    ("groups", "group"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2,'b'}", 4),
        ("replica_groups={}", 8),
    ],
)
def test_groups_in_every_spelling(groups, group):
    (one,) = _collected(
        "%x = f32[100]{0} parameter(0)",
        f"ROOT %y = f32[100]{{0}} all-reduce(%x), {groups}, to_apply=%add",
    )
    assert one.group == group


def test_pieces_of_one_channel_are_one_collective():
    """A gather beside the products of a loop is written in the loop and behind it."""
    gather = (
        "all-gather(%{}), channel_id=7, replica_groups=[2,4]<=[8], dimensions={{0}}"
    )
    text = small_programs.LOOP.replace(
        "%sum = f32[7,3]",
        f"%beside = f32[28,3]{{1,0}} {gather.format('new')}\n  %sum = f32[7,3]",
    ).replace(
        "ROOT %last =",
        f"%behind = f32[28,3]{{1,0}} {gather.format('first')}\n  ROOT %last =",
    )
    found = {one.kind: one for one in collectives.collect(hlo.read(text), 8)}
    assert (found["all-gather"].count, found["all-gather"].bytes) == (1, 28 * 3 * 4)
    assert found["all-reduce"].count == 5


def test_an_all_reduce_of_which_a_part_is_kept_is_a_reduce_scatter():
    body = "%all-reduce-scatter (i: f32[100]) -> f32[25] {\n"
    body += "  %i = f32[100]{0} parameter(0)\n"
    body += "  %sum = f32[100]{0} all-reduce(%i), replica_groups=[2,4]<=[8]\n"
    body += "  ROOT %part = f32[25]{0} slice(%sum), slice={[0:25]}\n}\n"
    text = small_programs.entry(
        "%x = f32[100]{0} parameter(0)",
        "ROOT %y = f32[25]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter",
    ).replace("ENTRY", body + "\nENTRY")
    (one,) = collectives.collect(hlo.read(text), 8)
    assert (one.kind, one.bytes, one.sent) == ("reduce-scatter", 400, 300)


def test_a_group_of_one_sends_nothing():
    assert not _collected(
        "%x = f32[100]{0} parameter(0)",
        "ROOT %y = f32[100]{0} all-reduce(%x), replica_groups=[8,1]<=[8]",
    )


def test_arrays_are_whole_however_a_collective_is_written():
    found = _collected(
        "%x = f32[100]{0} parameter(0)",
        "%s = (f32[100]{0}, f32[400]{0}) all-gather-start(%x), "
        "replica_groups=[2,4]<=[8], dimensions={0}",
        "%y = f32[400]{0} all-gather-done(%s)",
        "%z = f32[25]{0} reduce-scatter(%x), replica_groups=[2,4]<=[8]",
        "%p = (f32[100]{0}, f32[100]{0}, u32[]{:S(2)}, u32[]{:S(2)}) "
        "collective-permute-start(%x), source_target_pairs={{0,1}}",
        "ROOT %r = (f32[100]{0}, bf16[10]{0}) all-reduce(%x, %x), "
        "replica_groups=[2,4]<=[8]",
    )
    sizes = {one.kind: one.bytes for one in found}
    assert sizes == {
        "all-gather": 1600,
        "reduce-scatter": 400,
        "collective-permute": 400,
        "all-reduce": 420,
    }


def test_a_sum_over_devices_that_was_compiled_here():
    mesh = sharding.make_mesh(4, 2, 1)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    whole = functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    x = jax.device_put(jnp.ones((16, 33)), rows)
    text = whole(lambda x: jnp.sum(x, axis=0)).lower(x).compile().as_text()
    (one,) = collectives.collect(hlo.read(text), 8)
    assert (one.kind, one.group, one.count) == ("all-reduce", 8, 1)
    assert one.bytes == 33 * 4
