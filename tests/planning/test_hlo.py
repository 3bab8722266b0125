import jax
import jax.numpy as jnp
import pytest
import small_programs

from bert_jax.planning import hlo


def test_a_loop_runs_its_body_as_often_as_its_condition_says():
    program = hlo.read(small_programs.LOOP)
    assert program.times == {"main": 1, "body": 5, "fused": 5}
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
    assert hlo.read(text).times["body"] == 5
    assert hlo.read(by_twos).times["body"] == 3


def test_a_count_that_xla_states_comes_first():
    stated = small_programs.LOOP.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"9"}}'
    )
    assert hlo.read(stated).times["body"] == 9


def test_a_loop_whose_end_depends_on_data_counts_once_and_is_told():
    program = hlo.read(small_programs.LOOP.replace("direction=LT", "direction=NE"))
    assert program.times["body"] == 1
    assert program.unknown_loops == 1


def test_sizes_of_arrays_by_their_type_and_the_memory_they_lie_in():
    program = hlo.read(
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
    assert found["b"].main_bytes == 0 and found["p"].main_bytes == 15


def test_one_branch_of_a_conditional_runs_at_most():
    text = small_programs.LOOP.replace(
        "%first = f32[7,3]{1,0} dot(%a0, %b0), lhs_contracting_dims={1}, "
        "rhs_contracting_dims={0}",
        "%first = f32[7,3]{1,0} conditional(%zero, %a0, %b0), "
        "branch_computations={%fused, %body}",
    )
    program = hlo.read(text)
    assert program.times["fused"] == 1 + 6 and program.times["body"] == 6


def test_a_program_compiled_here_is_read():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=11)[0]

    text = jax.jit(scanned).lower(jnp.ones((13, 7))).compile().as_text()
    program = hlo.read(text)
    assert max(program.times.values()) == 11
    assert program.unknown_loops == 0


def test_no_program_is_an_error():
    with pytest.raises(ValueError, match="no entry"):
        hlo.read("HloModule empty")
