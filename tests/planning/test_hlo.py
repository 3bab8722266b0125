"""The reader of compiled programs: trips of loops, FLOPs, traffic and collectives.

Counts are checked by hand on small texts, and against XLA's own for real programs.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
import small_programs
from jax.sharding import NamedSharding, PartitionSpec

from bert_jax.planning import hlo
from bert_jax.training import sharding


def test_the_condition_of_a_loop_gives_its_trip_count():
    program = hlo.parse(small_programs.LOOP)
    assert program.counts == {"main": 1, "body": 5, "fused": 5}
    assert program.unknown_loops == 0
    body = program.computations["body"].instructions
    assert body["sum"].shapes == (hlo.Array("f32", (7, 3)),)
    assert body["new"].operands == ("a", "b")
    assert [x.dims for x in body["arg"].shapes] == [(), (7, 4), (4, 3), (7, 3)]
    assert program.computations["main"].root.name == "last"


def test_a_loop_that_counts_by_twos_has_half_the_trips():
    text = small_programs.LOOP.replace(
        "  %a = f32[7,4]{1,0} get",
        "  %two = s32[] constant(2)\n  %i.2 = s32[] add(%i, %two)\n"
        "  %a = f32[7,4]{1,0} get",
    )
    assert "tuple(%i, %a, %b, %sum)" in text
    by_twos = text.replace("tuple(%i, %a, %b, %sum)", "tuple(%i.2, %a, %b, %sum)")
    assert hlo.parse(text).counts["body"] == 5
    assert hlo.parse(by_twos).counts["body"] == 3


def test_a_trip_count_in_the_attributes_comes_first():
    stated = small_programs.LOOP.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"9"}}'
    )
    assert hlo.parse(stated).counts["body"] == 9


def test_a_loop_whose_end_depends_on_data_counts_once_and_is_reported():
    program = hlo.parse(small_programs.LOOP.replace("direction=LT", "direction=NE"))
    assert program.counts["body"] == 1
    assert program.unknown_loops == 1


def test_sizes_of_arrays_by_type_and_memory_space():
    program = hlo.parse(
        small_programs.entry(
            "%p = pred[3,5]{1,0} parameter(0)",
            "%b = bf16[2,128]{1,0:T(8,128)(2,1)S(1)} copy(%p)",
            "%e = f8e4m3fn[10]{0} copy(%p)",
            "%s = s4[3]{0} copy(%p)",
            "%t = token[] after-all()",
            "ROOT %r = f32[] constant(0)",
        )
    )
    found = program.computations["main"].instructions
    assert [found[n].bytes for n in "pbestr"] == [15, 512, 10, 2, 0, 4]
    assert found["b"].is_on_chip and not found["p"].is_on_chip


def test_branches_of_a_conditional_count_as_run():
    text = small_programs.LOOP.replace(
        "%first = f32[7,3]{1,0} dot(%a0, %b0), lhs_contracting_dims={1}, "
        "rhs_contracting_dims={0}",
        "%first = f32[7,3]{1,0} conditional(%zero, %a0, %b0), "
        "branch_computations={%fused, %body}",
    )
    program = hlo.parse(text)
    assert program.counts["fused"] == 1 + 6 and program.counts["body"] == 6


def test_a_compiled_program_is_parsed():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=11)[0]

    text = jax.jit(scanned).lower(jnp.ones((13, 7))).compile().as_text()
    program = hlo.parse(text)
    assert max(program.counts.values()) == 11
    assert program.unknown_loops == 0


def test_a_text_without_a_program_is_an_error():
    with pytest.raises(ValueError, match="entry"):
        hlo.parse("HloModule empty")


def _cost(*lines):
    return hlo.cost(hlo.parse(small_programs.entry(*lines)))


def test_products_in_loops_count_with_all_trips():
    cost = hlo.cost(hlo.parse(small_programs.LOOP))
    assert cost.flops == 6 * 2 * 7 * 3 * 4
    # Each product reads 7 x 4 and 4 x 3 and writes 7 x 3; the all-reduce reads and
    # writes 7 x 3, only in the loop.
    assert cost.main_bytes == 4 * (6 * (28 + 12 + 21) + 5 * 2 * 21)


@pytest.mark.parametrize(
    ("instruction", "flops"),
    [
        # A product [16, 128, 256] x [256, 64] as a convolution without a window.
        (
            "f32[16,128,64]{2,1,0} convolution(%x, %k), window={size=1}, "
            "dim_labels=0bf_oi0->0bf",
            2 * 16 * 128 * 256 * 64,
        ),
        # Batched over the first axis, which is dilated: pairs of equal index meet.
        (
            "f32[16,128,64]{2,1,0} convolution(%q, %v), window={size=16 stride=15 "
            "lhs_dilate=16}, dim_labels=0bf_0io->0bf",
            2 * 16 * 128 * 32 * 64,
        ),
        # Padding meets nothing: of 5 x 3 pairs, two at the edges fall away.
        (
            "f32[1,5,1]{2,1,0} convolution(%row, %three), window={size=3 pad=1_1}, "
            "dim_labels=b0f_0io->b0f",
            2 * 13,
        ),
    ],
)
def test_products_as_convolutions(instruction, flops):
    cost = _cost(
        "%x = f32[16,128,256]{2,1,0} parameter(0)",
        "%k = f32[64,256,1]{2,1,0} parameter(1)",
        "%q = f32[16,128,32]{2,1,0} parameter(2)",
        "%v = f32[16,32,64]{2,1,0} parameter(3)",
        "%row = f32[1,5,1]{2,1,0} parameter(4)",
        "%three = f32[3,1,1]{2,1,0} parameter(5)",
        f"ROOT %c = {instruction}",
    )
    assert cost.flops == flops


@pytest.mark.parametrize(
    ("name", "grid", "results", "blocks"),
    [
        ("splash_mha_fwd_segmented_residuals", "4,4", "", 2 * 16),
        ("splash_mha_dq_segmented_no_residuals", "4,4", "", 3 * 16),
        ("splash_mha_dkv_segmented_no_residuals", "4,4", "", 4 * 16),
        # With the gradients by queries in the same kernel, one part a block of keys.
        (
            "splash_mha_dkv_no_residuals",
            "4,4",
            "bf16[2,4,3,256,64]{4,3,2,1,0}, ",
            5 * 16,
        ),
        # Local attention takes three of four blocks.
        ("splash_mha_fwd_segmented_residuals", "4,3", "", 2 * 12),
        ("splash_mha_dkv_no_residuals", "3,4", "", 4 * 12),
    ],
)
def test_products_of_the_kernels_of_splash(name, grid, results, blocks):
    cost = _cost(
        f"%mask = s8[1,{grid}]{{2,1,0}} parameter(0)",
        "%q = bf16[2,3,256,64]{3,2,1,0} parameter(1)",
        f"ROOT %{name}.1 = ({results}bf16[2,3,256,64]{{3,2,1,0}}) "
        'custom-call(%mask, %q, %q, %q), custom_call_target="tpu_custom_call"',
    )
    assert cost.flops == blocks * 2 * 2 * 3 * 64 * 64 * 64
    assert cost.unknown_kernels == 0


def test_unknown_kernels_are_counted():
    cost = _cost(
        "%q = bf16[2,3,256,64]{3,2,1,0} parameter(1)",
        "ROOT %somebodys.1 = bf16[2,3,256,64]{3,2,1,0} custom-call(%q), "
        'custom_call_target="tpu_custom_call"',
    )
    assert (cost.flops, cost.unknown_kernels) == (0, 1)


def test_cublas_products_are_counted_and_cudnn_kernels_are_unknown():
    settings = (
        'backend_config={"gemm_backend_config":{"dot_dimension_numbers":'
        '{"lhs_contracting_dimensions":["0"],"rhs_contracting_dimensions":["1"]}}}'
    )
    cost = _cost(
        "%a = bf16[40,7]{1,0} parameter(0)",
        "%b = bf16[3,40]{1,0} parameter(1)",
        "%c = (bf16[7,3]{1,0}, s8[4096]{0}) custom-call(%a, %b), "
        f'custom_call_target="__cublas$gemm", {settings}',
        'ROOT %d = bf16[7,3]{1,0} custom-call(%a), custom_call_target="__cudnn$fmha"',
    )
    assert cost.flops == 2 * 7 * 3 * 40
    assert cost.unknown_kernels == 1


@pytest.mark.parametrize(("name", "products"), [("", 2), ("Backward", 5)])
def test_products_of_the_attention_of_cudnn(name, products):
    result = "(bf16[2,3,40,8]{3,1,2,0}, f32[2,3,40]{2,1,0}, u8[0]{0})"
    cost = _cost(
        "%q = bf16[2,40,3,8]{3,2,1,0} parameter(0)",
        f"ROOT %a = {result} custom-call(%q, %q, %q), "
        f'custom_call_target="__cudnn$fmhaSoftmax{name}"',
    )
    assert cost.flops == products * 2 * 2 * 3 * 40 * 40 * 8
    assert cost.unknown_kernels == 0


def test_on_chip_memory_is_not_main_memory_traffic():
    cost = _cost(
        "%x = f32[100]{0} parameter(0)",
        "%s = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%x)",
        "%y = f32[100]{0:S(1)} copy-done(%s)",
        "%z = f32[100]{0:S(1)} negate(%y)",
        "ROOT %w = f32[100]{0} negate(%z)",
    )
    assert cost.main_bytes == 400 + 400  # fetched, and the last one written


def test_a_gather_that_overlaps_with_a_fusion_is_not_its_traffic():
    text = (
        small_programs.LOOP.replace(
            "ROOT %dot.1 = f32[7,3]{1,0} dot(%p0, %p1)",
            "%buffer = f32[1000]{0} parameter(2)\n"
            "  %part = f32[250]{0} parameter(3)\n"
            "  %gather = f32[1000]{0} all-gather(%part), channel_id=3\n"
            "  %dot.1 = f32[7,3]{1,0} dot(%p0, %p1)",
        )
        .replace(
            "rhs_contracting_dims={0}\n}",
            "rhs_contracting_dims={0}\n"
            "  ROOT %all = (f32[7,3]{1,0}, f32[1000]{0}, f32[1000]{0}) "
            "tuple(%dot.1, %gather, %buffer)\n}",
            1,
        )
        .replace(
            "%new = f32[7,3]{1,0} fusion(%a, %b)",
            "%buffers = f32[1000]{0} get-tuple-element(%arg), index=4\n"
            "  %part_of = f32[250]{0} get-tuple-element(%arg), index=5\n"
            "  %new = (f32[7,3]{1,0}, f32[1000]{0}, f32[1000]{0}) "
            "fusion(%a, %b, %buffers, %part_of)",
        )
    )
    # In the loop the all-reduce reads all three results of the fusion, as written here.
    extra = 5 * 4 * 2000
    plain = hlo.cost(hlo.parse(small_programs.LOOP)).main_bytes
    assert hlo.cost(hlo.parse(text)).main_bytes == plain + extra


def test_a_slice_counts_as_what_it_takes():
    cost = _cost(
        "%x = f32[1000]{0} parameter(0)",
        "%i = s32[] parameter(1)",
        "%u = f32[10]{0} parameter(2)",
        "%part = f32[10]{0} dynamic-slice(%x, %i), dynamic_slice_sizes={10}",
        "ROOT %w = f32[1000]{0} dynamic-update-slice(%x, %u, %i)",
    )
    assert cost.main_bytes == (40 + 4 + 40) + (40 + 40)


def _compiled(function, *arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    return hlo.cost(hlo.parse(compiled.as_text())), compiled.cost_analysis()


def _layer(x, w):
    return jnp.tanh(x @ w)


def test_a_loop_costs_what_its_unrolled_program_costs():
    x, w = jnp.ones((96, 128)), jnp.ones((6, 128, 128))

    def run(x, w, unroll):
        return jax.lax.scan(lambda c, v: (_layer(c, v), None), x, w, unroll=unroll)[0]

    loop, _ = _compiled(lambda x, w: run(x, w, 1), x, w)
    unrolled, analysis = _compiled(lambda x, w: run(x, w, 6), x, w)
    assert loop.flops == unrolled.flops == 6 * 2 * 96 * 128 * 128
    assert loop.flops == pytest.approx(analysis["flops"], rel=0.01)
    assert loop.main_bytes == pytest.approx(unrolled.main_bytes, rel=0.35)


def test_traffic_is_that_of_xlas_analysis_if_nothing_loops():
    x, w = jnp.ones((96, 128)), jnp.ones((128, 128))
    ours, analysis = _compiled(lambda x, w: jnp.sum(_layer(_layer(x, w), w)), x, w)
    assert ours.flops == 2 * 2 * 96 * 128 * 128
    assert ours.main_bytes == pytest.approx(analysis["bytes accessed"], rel=0.1)


# Adds to a row of 10 of an array of 1000, in place, in a nested fusion, after another
# fusion that changes the layout of the array in place.
NESTED = """\
%relaid (r0: f32[100,10]) -> f32[100,10] {
  %r0 = f32[100,10]{1,0} parameter(0)
  ROOT %copied = f32[100,10]{1,0} copy(%r0)
}

%inner (i0: f32[100,10], i1: s32[], i2: f32[10]) -> (f32[100,10], f32[10]) {
  %i0 = f32[100,10]{1,0} parameter(0)
  %i1 = s32[] parameter(1)
  %i2 = f32[10]{0} parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,10]{1,0} dynamic-slice(%i0, %i1, %zero), dynamic_slice_sizes={1,10}
  %flat = f32[10]{0} bitcast(%row)
  %sum = f32[10]{0} add(%flat, %i2)
  %wide = f32[1,10]{1,0} bitcast(%sum)
  %put = f32[100,10]{1,0} dynamic-update-slice(%i0, %wide, %i1, %zero)
  ROOT %two = (f32[100,10]{1,0}, f32[10]{0}) tuple(%put, %sum)
}

%outer (o0: f32[100,10], o1: s32[], o2: f32[10]) -> (f32[100,10], f32[10]) {
  %o0 = f32[100,10]{1,0} parameter(0)
  %o1 = s32[] parameter(1)
  %o2 = f32[10]{0} parameter(2)
  %same = f32[100,10]{1,0} fusion(%o0), ALIASED, calls=%relaid
  %of = (f32[100,10]{1,0}, f32[10]{0}) fusion(%same, %o1, %o2), calls=%inner
  %one = f32[100,10]{1,0} get-tuple-element(%of), index=0
  %other = f32[10]{0} get-tuple-element(%of), index=1
  ROOT %both = (f32[100,10]{1,0}, f32[10]{0}) tuple(%one, %other)
}
""".replace("ALIASED", "output_to_operand_aliasing={{}: (0, {})}")


def test_a_nested_fusion_reads_and_writes_parts():
    call = "(f32[100,10]{1,0}, f32[10]{0}) fusion(%x, %n, %y), calls=%outer"
    text = small_programs.entry(
        "%x = f32[100,10]{1,0} parameter(0)",
        "%n = s32[] parameter(1)",
        "%y = f32[10]{0} parameter(2)",
        f"ROOT %r = {call}",
    )
    program = hlo.parse(text.replace("ENTRY", f"{NESTED}\nENTRY"))
    fusion = program.computations["main"].root
    assert [hlo.fusion_reads(fusion, n, program) for n in range(3)] == [40, 4, 40]
    assert hlo.fusion_writes(fusion, program) == [40, 40]
    assert hlo.cost(program).main_bytes == 40 + 4 + 40 + 40 + 40


def test_the_traffic_of_a_loop_grows_with_its_trips_and_not_with_their_square():
    def moved(layers):
        def loss(w, x):
            step = lambda c, v: (jnp.tanh(c @ v), None)  # noqa: E731
            return jnp.sum(jax.lax.scan(step, x, w)[0])

        arguments = jnp.ones((layers, 64, 64)), jnp.ones((96, 64))
        text = jax.jit(jax.grad(loss)).lower(*arguments).compile().as_text()
        return hlo.cost(hlo.parse(text)).main_bytes

    few, more, most = moved(4), moved(16), moved(64)
    assert (most - more) / (more - few) == pytest.approx(48 / 12, rel=0.1)


def test_buffer_calls_move_nothing():
    text = small_programs.entry(
        '%a = f32[1000]{0} custom-call(), custom_call_target="AllocateBuffer"',
        '%b = f32[1000]{0} custom-call(%a), custom_call_target="ConcatBitcast"',
        "ROOT %c = f32[1000]{0} negate(%b)",
    )
    assert hlo.cost(hlo.parse(text)).main_bytes == 2 * 4000


def test_a_fusion_within_on_chip_memory_has_no_main_memory_traffic():
    inner = "%inner (i: f32[8]) -> f32[8] {\n  %i = f32[8]{0} parameter(0)\n"
    inner += "  ROOT %j = f32[8]{0} negate(%i)\n}\n"
    text = small_programs.entry(
        "%x = f32[8]{0:S(1)} parameter(0)",
        "ROOT %y = f32[8]{0:S(1)} fusion(%x), kind=kLoop, calls=%inner",
    )
    cost = hlo.cost(hlo.parse(text.replace("ENTRY", f"{inner}\nENTRY")))
    assert cost.main_bytes == 0


def _collected(*lines, devices=8):
    return hlo.collectives(hlo.parse(small_programs.entry(*lines)), devices)


def test_collectives_in_loops_count_with_all_trips():
    (one,) = hlo.collectives(hlo.parse(small_programs.LOOP), 8)
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
    assert hlo.sent_bytes(kind, 4, size) == sent


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
def test_each_notation_of_groups(groups, group):
    (one,) = _collected(
        "%x = f32[100]{0} parameter(0)",
        f"ROOT %y = f32[100]{{0}} all-reduce(%x), {groups}, to_apply=%add",
    )
    assert one.group == group


def test_instructions_of_one_channel_are_one_collective():
    """A gather that overlaps with a loop appears in the loop and after it."""
    gather = (
        "all-gather(%{}), channel_id=7, replica_groups=[2,4]<=[8], dimensions={{0}}"
    )
    text = small_programs.LOOP.replace(
        "%sum = f32[7,3]",
        f"%overlapping = f32[28,3]{{1,0}} {gather.format('new')}\n  %sum = f32[7,3]",
    ).replace(
        "ROOT %last =",
        f"%after = f32[28,3]{{1,0}} {gather.format('first')}\n  ROOT %last =",
    )
    found = {one.kind: one for one in hlo.collectives(hlo.parse(text), 8)}
    assert (found["all-gather"].count, found["all-gather"].bytes) == (1, 28 * 3 * 4)
    assert found["all-reduce"].count == 5


def test_an_all_reduce_fused_with_a_slice_is_a_reduce_scatter():
    body = "%all-reduce-scatter (i: f32[100]) -> f32[25] {\n"
    body += "  %i = f32[100]{0} parameter(0)\n"
    body += "  %sum = f32[100]{0} all-reduce(%i), replica_groups=[2,4]<=[8]\n"
    body += "  ROOT %part = f32[25]{0} slice(%sum), slice={[0:25]}\n}\n"
    text = small_programs.entry(
        "%x = f32[100]{0} parameter(0)",
        "ROOT %y = f32[25]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter",
    ).replace("ENTRY", body + "\nENTRY")
    (one,) = hlo.collectives(hlo.parse(text), 8)
    assert (one.kind, one.bytes, one.sent) == ("reduce-scatter", 400, 300)


def test_a_group_of_one_sends_nothing():
    assert not _collected(
        "%x = f32[100]{0} parameter(0)",
        "ROOT %y = f32[100]{0} all-reduce(%x), replica_groups=[8,1]<=[8]",
    )


def test_each_form_of_a_collective_counts_whole_arrays():
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


def test_a_compiled_sum_over_devices():
    mesh = sharding.make_mesh(4, 2, 1)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    whole = functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    x = jax.device_put(jnp.ones((16, 33)), rows)
    text = whole(lambda x: jnp.sum(x, axis=0)).lower(x).compile().as_text()
    (one,) = hlo.collectives(hlo.parse(text), 8)
    assert (one.kind, one.group, one.count) == ("all-reduce", 8, 1)
    assert one.bytes == 33 * 4
