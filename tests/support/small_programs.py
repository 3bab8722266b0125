"""Texts of compiled programs, shortened by hand, and the config of a small run."""

from pathlib import Path

import tiny_run

from bert_jax.config import pretraining
from bert_jax.foundation import devices
from bert_jax.planning import topology

# A product, then a loop of five trips around another product.
_LOOP = """\
HloModule small

%fused (p0: f32[7,4], p1: f32[4,3]) -> f32[7,3] {
  %p0 = f32[7,4]{1,0} parameter(0)
  %p1 = f32[4,3]{1,0} parameter(1)
  ROOT %dot.1 = f32[7,3]{1,0} dot(%p0, %p1), INNER
}

%body (arg: TYPES) -> TYPES {
  %arg = (s32[], f32[7,4]{1,0}, /*index=2*/f32[4,3]{1,0}, f32[7,3]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %a = f32[7,4]{1,0} get-tuple-element(%arg), index=1
  %b = f32[4,3]{1,0} get-tuple-element(%arg), index=2
  %new = f32[7,3]{1,0} fusion(%a, %b), kind=kOutput, calls=%fused
  %sum = f32[7,3]{1,0} all-reduce(%new), channel_id=1, FOURS, to_apply=%add
  ROOT %out = CARRY tuple(%i, %a, %b, %sum)
}

%condition (arg: TYPES) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %arg.1 = CARRY parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[] compare(%j, %limit), direction=LT
}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %plus = f32[] add(%x, %y)
}

ENTRY %main (a0: f32[7,4], b0: f32[4,3]) -> f32[7,3] {
  %a0 = f32[7,4]{1,0} parameter(0)
  %b0 = f32[4,3]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %first = f32[7,3]{1,0} dot(%a0, %b0), INNER
  %start = CARRY tuple(%zero, %a0, %b0, %first)
  %loop = CARRY while(%start), condition=%condition, body=%body
  ROOT %last = f32[7,3]{1,0} get-tuple-element(%loop), index=3
}
"""
LOOP = (
    _LOOP.replace("CARRY", "(s32[], f32[7,4]{1,0}, f32[4,3]{1,0}, f32[7,3]{1,0})")
    .replace("TYPES", "(s32[], f32[7,4], f32[4,3], f32[7,3])")
    .replace("INNER", "lhs_contracting_dims={1}, rhs_contracting_dims={0}")
    .replace("FOURS", "replica_groups=[2,4]<=[8]")
)


def entry(*lines: str) -> str:
    """Returns a program of these instructions."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule one\n\nENTRY %main (x: f32[]) -> f32[] {{\n{body}\n}}\n"


def settings(**changes) -> pretraining.PretrainingConfig:
    """Returns a run of a model of width 32 and two layers; `run__seed=3` changes it."""
    return pretraining.parse(tiny_run.config(Path("unread"), **changes))


def topology_of(chip: devices.Chip, number: int) -> topology.Topology:
    """Returns chips that nothing can be compiled for."""
    return topology.Topology(f"{chip.name}:{number}", chip, (), 1, number)


H100 = next(chip for chip in devices.CHIPS if chip.name == "h100")
V5E = next(chip for chip in devices.CHIPS if chip.name == "v5e")
