"""Parts of arrays of all layers, cut out and written in fusions and fusions within."""

import jax
import jax.numpy as jnp
import pytest
import small_programs

from bert_jax.planning import fusion_traffic, hlo, hlo_costs

# Adds to a row of 10 of an array of 1000, in place, in a fusion within a fusion, after
# another one that gives the array another layout where it is.
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


def test_a_fusion_within_a_fusion_takes_and_writes_parts():
    call = "(f32[100,10]{1,0}, f32[10]{0}) fusion(%x, %n, %y), calls=%outer"
    text = small_programs.entry(
        "%x = f32[100,10]{1,0} parameter(0)",
        "%n = s32[] parameter(1)",
        "%y = f32[10]{0} parameter(2)",
        f"ROOT %r = {call}",
    )
    program = hlo.read(text.replace("ENTRY", f"{NESTED}\nENTRY"))
    fusion = program.computations["main"].root
    assert [fusion_traffic.read(fusion, n, program) for n in range(3)] == [40, 4, 40]
    assert fusion_traffic.written(fusion, program) == [40, 40]
    assert hlo_costs.cost(program).bytes == 40 + 4 + 40 + 40 + 40


def test_the_traffic_of_a_loop_grows_with_its_trips_and_not_with_their_square():
    def moved(layers):
        def loss(w, x):
            step = lambda c, v: (jnp.tanh(c @ v), None)  # noqa: E731
            return jnp.sum(jax.lax.scan(step, x, w)[0])

        arguments = jnp.ones((layers, 64, 64)), jnp.ones((96, 64))
        text = jax.jit(jax.grad(loss)).lower(*arguments).compile().as_text()
        return hlo_costs.cost(hlo.read(text)).bytes

    few, more, most = moved(4), moved(16), moved(64)
    assert (most - more) / (more - few) == pytest.approx(48 / 12, rel=0.1)


def test_naming_memory_moves_nothing():
    text = small_programs.entry(
        '%a = f32[1000]{0} custom-call(), custom_call_target="AllocateBuffer"',
        '%b = f32[1000]{0} custom-call(%a), custom_call_target="ConcatBitcast"',
        "ROOT %c = f32[1000]{0} negate(%b)",
    )
    assert hlo_costs.cost(hlo.read(text)).bytes == 2 * 4000


def test_a_fusion_within_fast_memory_moves_nothing_in_the_main_one():
    inner = "%inner (i: f32[8]) -> f32[8] {\n  %i = f32[8]{0} parameter(0)\n"
    inner += "  ROOT %j = f32[8]{0} negate(%i)\n}\n"
    text = small_programs.entry(
        "%x = f32[8]{0:S(1)} parameter(0)",
        "ROOT %y = f32[8]{0:S(1)} fusion(%x), kind=kLoop, calls=%inner",
    )
    cost = hlo_costs.cost(hlo.read(text.replace("ENTRY", f"{inner}\nENTRY")))
    assert (cost.main_bytes, cost.bytes) == (0.0, 64.0)
