"""Settings that fit into memory: the largest batch, a change that helps, and variants.

The search goes by formula, corrected by compiled programs where there are any; a result
is compiled before it is reported to fit.
"""

import ast
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bert_jax import errors
from bert_jax.config import pretraining
from bert_jax.foundation import fields
from bert_jax.planning import costs, program

_TRIES = 3  # programs compiled for one answer
_MAX_ROWS = 1 << 20
_REMAT = ("none", "dots", "full")  # cheapest first


@dataclasses.dataclass(frozen=True)
class FittingSettings:
    """Settings that fit.

    Attributes:
      change: the changed setting, as written in a config.
      settings: the config with the change.
      peak_bytes: peak memory of one chip.
      compiled: whether this is from a compiled program, not from the formula.
    """

    change: str
    settings: pretraining.PretrainingConfig
    peak_bytes: float
    compiled: bool


class SettingsSearch:
    """Searches for settings that fit, starting from a plan."""

    def __init__(self, plan: costs.RunPlan, log: costs.Log, *, confirm: bool) -> None:
        """Takes a plan; `confirm` compiles each result, where that is possible."""
        self._confirm = confirm and plan.layout.topology.compiles
        self._layout, self._phase = plan.layout, plan.largest
        self._room = plan.layout.topology.chip.memory_bytes
        self._log = log
        # Temporary memory of a compiled program over that of the formula.
        self._ratio = 1.0
        if self._phase.compiled is not None:
            self._correct(self._phase.compiled, self._phase.formula)

    def largest_batch(self) -> FittingSettings | None:
        """Returns the largest batch that fits, or None if not even one row fits.

        A compiled program may show that the formula was wrong, whether the program fits
        or not: then there is another try.
        """
        settings = self._layout.settings
        unit = settings.run.accumulation_steps * self._layout.batch_shards
        best, least, most = None, 0, _MAX_ROWS
        for _ in range(_TRIES):
            rows = self._most_rows(unit, most)
            if rows is None or rows <= least * 9 // 8:
                break
            found = self._confirmed(_with_batch(settings, rows * unit))
            if found is not None:
                best, least = found, rows
            else:
                most = rows * 15 // 16
        return best

    def change(self) -> FittingSettings | None:
        """Returns one change of one setting that makes the run fit, or None.

        The cheapest come first: more micro-batches, parameters sharded over more chips,
        rematerialization, a smaller batch.
        """
        tried = 0
        for change, settings in self._changes():
            if self._estimated(settings) is None:
                continue
            found = self._confirmed(settings, change)
            tried += 1
            if found is not None or tried == _TRIES:
                return found
        return None

    def _correct(self, compiled: program.CompiledStep, formula: costs.StepCost) -> None:
        """Updates the ratio from a compiled program, or from its compiler's refusal."""
        needed = compiled.requested_bytes or compiled.temporary_bytes
        if needed:
            self._ratio = max(needed / formula.temporary_bytes, 0.1)

    def _changes(self) -> Iterator[tuple[str, pretraining.PretrainingConfig]]:
        settings = self._layout.settings
        run, chips = settings.run, self._layout.chips
        for parts in (2, 4, 8, 16, 32, 64):
            micro = run.accumulation_steps * parts
            if run.batch_size % (micro * self._layout.batch_shards) == 0:
                changed = dataclasses.replace(run, accumulation_steps=micro)
                name = f"run.accumulation_steps={micro}"
                yield name, dataclasses.replace(settings, run=changed)
        for fsdp in (2, 4, 8, 16, 32, 64, 128, 256):
            fits = chips % (fsdp * self._layout.tensor) == 0
            if fits and fsdp > settings.mesh.fsdp:
                mesh = dataclasses.replace(settings.mesh, data=-1, fsdp=fsdp)
                yield f"mesh.fsdp={fsdp}", dataclasses.replace(settings, mesh=mesh)
        for remat in _REMAT[_REMAT.index(run.remat) + 1 :]:
            changed = dataclasses.replace(run, remat=remat)
            yield f"run.remat={remat}", dataclasses.replace(settings, run=changed)
        yield from self._smaller_batches()

    def _smaller_batches(
        self,
    ) -> Iterator[tuple[str, pretraining.PretrainingConfig]]:
        settings = self._layout.settings
        unit = settings.run.accumulation_steps * self._layout.batch_shards
        rows = self._most_rows(unit, settings.run.batch_size // unit)
        while rows:
            size = rows * unit
            yield f"run.batch_size={size}", _with_batch(settings, size)
            rows = rows * 15 // 16

    def _most_rows(self, unit: int, most: int) -> int | None:
        """Returns how many times `unit` rows fit by formula, at most `most`."""
        settings = self._layout.settings
        return _largest(
            lambda n: self._estimated(_with_batch(settings, n * unit)), most
        )

    def _estimated(self, settings: pretraining.PretrainingConfig) -> float | None:
        """Returns the peak by the corrected formula, or None if it does not fit."""
        try:
            layout = self._laid_out(settings)
        except errors.InputError:  # a mesh that no parameter divides over
            return None
        cost = costs.by_formula(layout, self._phase.length)
        peak = cost.arguments_bytes + self._ratio * cost.temporary_bytes
        return peak if peak <= self._room else None

    def _laid_out(self, settings: pretraining.PretrainingConfig) -> program.RunLayout:
        """Returns a layout for formulas; the state depends only on the mesh."""
        if settings.mesh == self._layout.settings.mesh:
            return dataclasses.replace(self._layout, settings=settings)
        topology = self._layout.topology
        return program.lay_out(settings, topology, for_compiling=False)

    def _confirmed(
        self, settings: pretraining.PretrainingConfig, change: str = ""
    ) -> FittingSettings | None:
        """Returns settings that fit by formula, unless compiling shows otherwise."""
        change = change or f"run.batch_size={settings.run.batch_size}"
        topology = self._layout.topology
        if not self._confirm:
            peak = self._estimated(settings)
            if peak is None:
                return None
            return FittingSettings(change, settings, peak, False)
        if settings == self._layout.settings:
            compiled = self._phase.compiled
        else:
            layout = program.lay_out(settings, topology, for_compiling=True)
            length = self._phase.length
            self._log(f"{change}: {costs.compile_message(layout, length)}")
            compiled = program.compile_step(layout, length, read=False)
            self._correct(compiled, costs.by_formula(layout, length))
        assert compiled is not None
        if compiled.refusal or compiled.peak_bytes > self._room:
            return None
        return FittingSettings(change, settings, compiled.peak_bytes, True)


def _with_batch(
    settings: pretraining.PretrainingConfig, batch_size: int
) -> pretraining.PretrainingConfig:
    run = dataclasses.replace(settings.run, batch_size=batch_size)
    return dataclasses.replace(settings, run=run)


def _largest(fits: Callable[[int], object | None], most: int) -> int | None:
    """Returns the largest count up to `most` that fits, rounded down to 8 from 8 on.

    If a count does not fit, no larger one may fit either.
    """
    if most < 1 or fits(1) is None:
        return None
    low, high = 1, 2
    while high <= most and fits(high) is not None:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) is None else (middle, high)
    return low if low < 8 else low // 8 * 8


def variant(
    tree: Mapping[str, Any], topology: str, text: str
) -> tuple[dict[str, Any], str]:
    """Returns the settings and the topology of a variant.

    A variant is settings, a topology or both, separated by semicolons: `v5p:4x4x4`,
    `run.remat=dots`, or `v5e:8x8;mesh.fsdp=16;run.batch_size=1024`.

    Args:
      tree: all settings, as `pretraining.parse` takes them.
      topology: the topology if the variant has none.
      text: the variant.

    Raises:
      InputError: an unknown key, or a value of another type or out of range.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(tree))
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = part.partition("=")
        if not equals:
            topology = part
            continue
        _set(changed, key.removeprefix("config.").strip(), value.strip())
    pretraining.parse(changed)
    return changed, topology


def _set(tree: dict[str, Any], key: str, text: str) -> None:
    known = fields.flat(tree)
    if key not in known:
        near = fields.nearest(key, known)
        raise errors.InputError(f"--compare: unknown config key {key}.{near}")
    *groups, name = key.split(".")
    for group in groups:
        tree = tree[group]
    tree[name] = text if isinstance(known[key], str) else _literal(text)


def _literal(text: str) -> Any:
    """Returns the number or truth value that a text denotes, or the text."""
    try:
        return ast.literal_eval(text.capitalize() if text.isalpha() else text)
    except (ValueError, SyntaxError):
        return text
