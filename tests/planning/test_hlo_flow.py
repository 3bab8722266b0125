"""Marks through a program that was cut down by hand, one instruction of each kind."""

import pytest
import small_programs

from bert_jax.planning import hlo, hlo_flow

# Arguments x and m go around a loop that swaps them on its way, so that what is m at
# first is gathered only in the second trip. A branch sums m, a fusion makes two values.
_TEXT = """\
HloModule small

%pair (p0: f32[4], p1: f32[4]) -> (f32[4], f32[4]) {
  %p0 = f32[4]{0} parameter(0)
  %p1 = f32[4]{0} parameter(1)
  %twice = f32[4]{0} add(%p0, %p0)
  ROOT %both = (f32[4]{0}, f32[4]{0}) tuple(%twice, %p1)
}

%body (arg: (s32[], f32[4], f32[4])) -> (s32[], f32[4], f32[4]) {
  %arg = (s32[], f32[4]{0}, f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %a = f32[4]{0} get-tuple-element(%arg), index=1
  %b = f32[4]{0} get-tuple-element(%arg), index=2
  %gathered = f32[8]{0} all-gather(%a), channel_id=1, replica_groups={{0,1}}
  ROOT %out = (s32[], f32[4]{0}, f32[4]{0}) tuple(%i, SWAPPED)
}

%condition (arg: (s32[], f32[4], f32[4])) -> pred[] {
  %limit = s32[] constant(5)
  %arg.1 = (s32[], f32[4]{0}, f32[4]{0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[] compare(%j, %limit), direction=LT
}

%summed (arg: f32[4]) -> f32[] {
  %arg.2 = f32[4]{0} parameter(0)
  %part = f32[] reduce(%arg.2), to_apply=%add
  ROOT %sum = f32[] all-reduce(%part), channel_id=2, to_apply=%add
}

%nothing (arg: f32[4]) -> f32[] {
  %arg.3 = f32[4]{0} parameter(0)
  ROOT %zero = f32[] constant(0)
}

ENTRY %main (x: f32[4], m: f32[4], p: pred[]) -> (f32[], f32[2,4], f32[2,4]) {
  %x = f32[4]{0} parameter(0), metadata={op_name="state.params[\\'w\\']"}
  %m = f32[4]{0} parameter(1), metadata={op_name="state.opt_state[1].mu[\\'w\\']"}
  %p = pred[] parameter(2), metadata={op_name="batch['p']"}
  %made = (f32[4]{0}, f32[4]{0}) fusion(%x, %m), kind=kLoop, calls=%pair
  %first = f32[4]{0} get-tuple-element(%made), index=0
  %second = f32[4]{0} get-tuple-element(%made), index=1
  %start = s32[] constant(0)
  %carry = (s32[], f32[4]{0}, f32[4]{0}) tuple(%start, %first, %second)
  %loop = (s32[], f32[4]{0}, f32[4]{0}) while(%carry), condition=%condition, body=%body
  %left = f32[] conditional(%p, %m, %x), \
branch_computations={%summed, %nothing}
  %moved = (f32[4]{0}, f32[2,4]{1,0}) all-gather-start(%x), replica_groups={{0,1}}
  %done = f32[2,4]{1,0} all-gather-done(%moved)
  %two = (f32[4]{0}, f32[4]{0}) all-to-all(%x, %second), replica_groups={{0,1}}
  ROOT %last = (f32[], f32[2,4]{1,0}) tuple(%left, %done)
}
"""
_FOUR = hlo.Array("f32", (4,))


def _sent(word, swapped="%b, %a"):
    text = _TEXT.replace("SWAPPED", swapped)
    return hlo_flow.sent(hlo.read(text), lambda name: word in name)


def test_arguments_have_the_names_of_the_traced_function():
    found = hlo_flow.arguments(hlo.read(_TEXT))
    assert found == {
        "state.params['w']": _FOUR,
        "state.opt_state[1].mu['w']": _FOUR,
        "batch['p']": hlo.Array("pred", ()),
    }


def test_what_depends_on_a_mark_is_found_in_loops_branches_and_fusions():
    assert _sent(".mu") == {
        hlo_flow.Sent("all-gather", hlo.Array("f32", (8,))),
        hlo_flow.Sent("all-reduce", hlo.Array("f32", ())),
        hlo_flow.Sent("all-to-all", _FOUR),
    }


def test_values_that_share_a_tuple_with_a_mark_are_told_apart():
    """Unswapped, the loop gathers x alone."""
    assert hlo_flow.Sent("all-gather", hlo.Array("f32", (8,))) not in _sent(
        ".mu", "%a, %b"
    )
    assert _sent(".params", "%a, %b") == {
        hlo_flow.Sent("all-gather", hlo.Array("f32", (8,))),
        hlo_flow.Sent("all-gather", hlo.Array("f32", (2, 4))),
        hlo_flow.Sent("all-to-all", _FOUR),
    }


def test_without_marks_nothing_is_found():
    assert _sent("nobody") == set()


@pytest.mark.parametrize("opcode", ["optimization-barrier", "copy"])
def test_tuples_that_pass_through_whole_keep_their_parts(opcode):
    text = small_programs.entry(
        '%x = f32[4]{0} parameter(0), metadata={op_name="x"}',
        '%m = f32[4]{0} parameter(1), metadata={op_name="m"}',
        "%t = (f32[4]{0}, f32[4]{0}) tuple(%x, %m)",
        f"%u = (f32[4]{{0}}, f32[4]{{0}}) {opcode}(%t)",
        "%v = f32[4]{0} get-tuple-element(%u), index=0",
        "ROOT %w = f32[8]{0} all-gather(%v), replica_groups={{0,1}}",
    )
    found = [hlo_flow.sent(hlo.read(text), lambda name, m=m: name == m) for m in "xm"]
    assert found == [{hlo_flow.Sent("all-gather", hlo.Array("f32", (8,)))}, set()]
