"""Work and traffic against counts by hand, and against XLA's own for real programs."""

import jax
import jax.numpy as jnp
import pytest
import small_programs

from bert_jax.planning import hlo, hlo_costs


def _cost(*lines):
    return hlo_costs.cost(hlo.read(small_programs.entry(*lines)))


def test_products_in_loops_count_with_all_trips():
    cost = hlo_costs.cost(hlo.read(small_programs.LOOP))
    assert cost.flops == 6 * 2 * 7 * 3 * 4
    # Each product reads 7 x 4 and 4 x 3 and writes 7 x 3; the all-reduce reads and
    # writes 7 x 3, in the loop alone.
    assert cost.bytes == 4 * (6 * (28 + 12 + 21) + 5 * 2 * 21)
    assert cost.main_bytes == cost.bytes


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


def test_a_kernel_that_is_not_known_is_told():
    cost = _cost(
        "%q = bf16[2,3,256,64]{3,2,1,0} parameter(1)",
        "ROOT %somebodys.1 = bf16[2,3,256,64]{3,2,1,0} custom-call(%q), "
        'custom_call_target="tpu_custom_call"',
    )
    assert (cost.flops, cost.unknown_kernels) == (0, 1)


def test_products_of_cublas_count_and_kernels_of_cudnn_are_told():
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


def test_fast_memory_is_no_traffic_of_the_main_one():
    cost = _cost(
        "%x = f32[100]{0} parameter(0)",
        "%s = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%x)",
        "%y = f32[100]{0:S(1)} copy-done(%s)",
        "%z = f32[100]{0:S(1)} negate(%y)",
        "ROOT %w = f32[100]{0} negate(%z)",
    )
    assert cost.main_bytes == 400 + 400  # fetched, and the last one written
    assert cost.bytes == 800 + 800 + 800


def test_what_is_gathered_beside_a_fusion_is_not_its_traffic():
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
            "%held = f32[1000]{0} get-tuple-element(%arg), index=4\n"
            "  %of_held = f32[250]{0} get-tuple-element(%arg), index=5\n"
            "  %new = (f32[7,3]{1,0}, f32[1000]{0}, f32[1000]{0}) "
            "fusion(%a, %b, %held, %of_held)",
        )
    )
    # In the loop the all-reduce reads all three results of the fusion, as written here.
    extra = 5 * 4 * 2000
    plain = hlo_costs.cost(hlo.read(small_programs.LOOP)).bytes
    assert hlo_costs.cost(hlo.read(text)).bytes == plain + extra


def test_a_slice_counts_as_what_it_takes():
    cost = _cost(
        "%x = f32[1000]{0} parameter(0)",
        "%i = s32[] parameter(1)",
        "%u = f32[10]{0} parameter(2)",
        "%part = f32[10]{0} dynamic-slice(%x, %i), dynamic_slice_sizes={10}",
        "ROOT %w = f32[1000]{0} dynamic-update-slice(%x, %u, %i)",
    )
    assert cost.bytes == (40 + 4 + 40) + (40 + 40)


def _compiled(function, *arguments):
    made = jax.jit(function).lower(*arguments).compile()
    return hlo_costs.cost(hlo.read(made.as_text())), made.cost_analysis()


def _layer(x, w):
    return jnp.tanh(x @ w)


def test_a_loop_costs_what_its_unrolled_program_costs():
    x, w = jnp.ones((96, 128)), jnp.ones((6, 128, 128))

    def run(x, w, unroll):
        return jax.lax.scan(lambda c, v: (_layer(c, v), None), x, w, unroll=unroll)[0]

    loop, _ = _compiled(lambda x, w: run(x, w, 1), x, w)
    unrolled, account = _compiled(lambda x, w: run(x, w, 6), x, w)
    assert loop.flops == unrolled.flops == 6 * 2 * 96 * 128 * 128
    assert loop.flops == pytest.approx(account["flops"], rel=0.01)
    assert loop.bytes == pytest.approx(unrolled.bytes, rel=0.35)


def test_traffic_is_that_of_xlas_account_where_nothing_loops():
    x, w = jnp.ones((96, 128)), jnp.ones((128, 128))
    ours, account = _compiled(lambda x, w: jnp.sum(_layer(_layer(x, w), w)), x, w)
    assert ours.flops == 2 * 2 * 96 * 128 * 128
    assert ours.bytes == pytest.approx(account["bytes accessed"], rel=0.1)
