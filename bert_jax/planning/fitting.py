"""What fits into the memory of a chip: the largest batch, or the change that helps.

Settings are sought by formula, which a compiled program corrects where there is one,
and what is found is compiled before it is said to fit.
"""

import dataclasses
from collections.abc import Callable, Iterator

from bert_jax import errors
from bert_jax.planning import estimate, plan_making, prediction, program
from bert_jax.settings import configuration

_TRIES = 3  # programs compiled for one answer
_MOST_ROWS = 1 << 20
_CANDIDATES = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Found:
    """Settings that fit.

    Attributes:
      change: what is different, as it is written in a config.
      settings: with the change.
      peak_bytes: of one chip.
      compiled: whether a compiled program says so, not the formula.
    """

    change: str
    settings: configuration.PretrainingConfig
    peak_bytes: float
    compiled: bool


class Search:
    """Looks for settings that fit where a plan was made."""

    def __init__(
        self, plan: plan_making.Plan, say: plan_making.Say, *, confirm: bool
    ) -> None:
        """Takes a plan; `confirm` compiles what is found, where that is possible."""
        self._confirm = confirm and plan.layout.topology.compiles
        self._layout, self._phase = plan.layout, plan.largest
        self._room = plan.layout.topology.chip.memory_bytes
        self._say = say
        # How much more, or less, a compiled program needs than the formula says.
        self._ratio = 1.0
        if self._phase.compiled is not None:
            self._correct(self._phase.compiled, self._phase.by_formula)

    def largest_batch(self) -> Found | None:
        """Returns the most rows a chip that fit, or None if not even one does.

        A program that fits may show, as one that does not, that the formula was wrong:
        then there is another try.
        """
        settings = self._layout.settings
        unit = settings.run.accumulation_steps * self._layout.row_parts
        best, least, most = None, 0, _MOST_ROWS
        for _ in range(_TRIES):
            rows = _largest(lambda n: self._estimated(_rows(settings, n * unit)), most)
            if rows is None or rows <= least * 9 // 8:
                break
            found = self._confirmed(_rows(settings, rows * unit))
            if found is not None:
                best, least = found, rows
            else:
                most = rows * 15 // 16
        return best

    def change(self) -> Found | None:
        """Returns one change of one setting by which the run fits, or None.

        Those that cost least come first: more micro-batches, parameters cut over more
        chips, recomputing, a smaller batch.
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

    def _correct(self, compiled: program.Compiled, formula: prediction.Needs) -> None:
        """Learns from a compiled program, or from what its compiler wanted."""
        wanted = compiled.wanted_bytes or compiled.temporary_bytes
        if wanted:
            self._ratio = max(wanted / formula.temporary_bytes, 0.1)

    def _changes(self) -> Iterator[tuple[str, configuration.PretrainingConfig]]:
        settings = self._layout.settings
        run, chips = settings.run, self._layout.chips
        for parts in (2, 4, 8, 16, 32, 64):
            micro = run.accumulation_steps * parts
            if run.batch_size % (micro * self._layout.row_parts) == 0:
                changed = dataclasses.replace(run, accumulation_steps=micro)
                name = f"run.accumulation_steps={micro}"
                yield name, dataclasses.replace(settings, run=changed)
        for fsdp in (2, 4, 8, 16, 32, 64, 128, 256):
            fits = chips % (fsdp * self._layout.tensor) == 0
            if fits and fsdp > settings.mesh.fsdp:
                mesh = dataclasses.replace(settings.mesh, data=-1, fsdp=fsdp)
                yield f"mesh.fsdp={fsdp}", dataclasses.replace(settings, mesh=mesh)
        for remat in _CANDIDATES[_CANDIDATES.index(run.remat) + 1 :]:
            changed = dataclasses.replace(run, remat=remat)
            yield f"run.remat={remat}", dataclasses.replace(settings, run=changed)
        yield from self._smaller_batches()

    def _smaller_batches(
        self,
    ) -> Iterator[tuple[str, configuration.PretrainingConfig]]:
        settings = self._layout.settings
        unit = settings.run.accumulation_steps * self._layout.row_parts
        most = settings.run.batch_size // unit
        rows = _largest(lambda n: self._estimated(_rows(settings, n * unit)), most)
        while rows:
            size = rows * unit
            yield f"run.batch_size={size}", _rows(settings, size)
            rows = rows * 15 // 16

    def _estimated(self, settings: configuration.PretrainingConfig) -> float | None:
        """Returns the peak by the corrected formula, or None if it does not fit."""
        try:
            layout = self._laid_out(settings)
        except errors.InputError:  # a mesh that no parameter divides over
            return None
        needs = estimate.needs(layout, self._phase.length)
        peak = needs.arguments_bytes + self._ratio * needs.temporary_bytes
        return peak if peak <= self._room else None

    def _laid_out(self, settings: configuration.PretrainingConfig) -> program.Layout:
        """Returns a layout for formulas; the state depends on the mesh alone."""
        if settings.mesh == self._layout.settings.mesh:
            return dataclasses.replace(self._layout, settings=settings)
        topology = self._layout.topology
        return program.lay_out(settings, topology, for_compiling=False)

    def _confirmed(
        self, settings: configuration.PretrainingConfig, change: str = ""
    ) -> Found | None:
        """Returns settings that the formula takes for possible, if they are."""
        change = change or f"run.batch_size={settings.run.batch_size}"
        topology = self._layout.topology
        if not self._confirm:
            peak = self._estimated(settings)
            return None if peak is None else Found(change, settings, peak, False)
        if settings == self._layout.settings:
            compiled = self._phase.compiled
        else:
            layout = program.lay_out(settings, topology, for_compiling=True)
            length = self._phase.length
            self._say(f"{change}: {plan_making.describe(layout, length)}")
            compiled = program.compile_step(layout, length, read=False)
            self._correct(compiled, estimate.needs(layout, length))
        assert compiled is not None
        fits = not compiled.refusal and compiled.peak_bytes <= self._room
        return Found(change, settings, compiled.peak_bytes, True) if fits else None


def _rows(
    settings: configuration.PretrainingConfig, batch_size: int
) -> configuration.PretrainingConfig:
    run = dataclasses.replace(settings.run, batch_size=batch_size)
    return dataclasses.replace(settings, run=run)


def _largest(fits: Callable[[int], object | None], most: int) -> int | None:
    """Returns the largest count up to `most` that fits, of 8 or more a multiple of 8.

    What is larger than one that does not fit must not fit either.
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
