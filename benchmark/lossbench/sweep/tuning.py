"""The fair search: every loss gets the same quasi-random candidates and the same number of trials, each an
ordinary cell.

Candidates come from Optuna's QMCSampler (scrambled Sobol points): they depend on the seed alone, so they are
the same for every loss, whatever the results and however many workers. The objective is a validation metric,
never the loss and never the test split; tuning seeds are disjoint from those that are reported. Nothing is
pruned, since losses differ in scale and in the shape of their curves."""

from __future__ import annotations

import csv
import math
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError
from lossbench.base.specs import render
from lossbench.catalogue.registry import LossSpec, parse_loss
from lossbench.experiment import rates
from lossbench.experiment.cells import Experiment, Part
from lossbench.store.store import Store
from lossbench.sweep import plan as plans
from lossbench.sweep.former import as_recorded

TUNING_SEEDS = 1_000_000  # tuning seeds start here; report seeds must stay below

OBJECTIVES = ("val_dice@val", "val_dice@0.5")


@dataclass(frozen=True)
class Budget:
    """What each loss is given: ``trials`` learning rates in ``low`` to ``high`` on ``seeds`` seeds; as many
    again for its own parameters.
    """

    trials: int = 8
    seeds: int = 1
    low: float = 5e-4
    high: float = 5e-2
    parameters: bool = False
    objective: str = "val_dice@val"
    sampler_seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One candidate: the loss as it is trained, its learning rate, and which loss it is a candidate for."""

    base: LossSpec
    loss: LossSpec
    learning_rate: float
    number: int
    kind: str  # "rate" or "parameters"


def candidates(budget: Budget, space: dict[str, tuple[float, float]] | None = None) -> list[dict[str, float]]:
    """Return the points of the search: ``learning_rate`` on a log scale, and each parameter of ``space``
    between its ends.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {
        "learning_rate": optuna.distributions.FloatDistribution(budget.low, budget.high, log=True)
    }
    for name, (low, high) in sorted((space or {}).items()):
        whole = isinstance(low, int) and isinstance(high, int)
        distributions[name] = (
            optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
        )(low, high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sampler is marked experimental
        study = optuna.create_study(
            sampler=optuna.samplers.QMCSampler(seed=budget.sampler_seed, scramble=True)
        )
        points = []
        for _ in range(budget.trials):
            trial = study.ask(distributions)
            points.append(dict(trial.params))
            study.tell(trial, 0.0)  # the points do not depend on what is told
    # Six digits are what the result file keeps, so that a rate read back is the rate that was tried.
    return [
        {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in point.items()}
        for point in points
    ]


def trials(losses: tuple[LossSpec, ...], budget: Budget, extra_files: tuple[str, ...]) -> list[Trial]:
    """Return every trial of every loss: the shared learning rates first, then as many points of its own
    parameters where it declares a range.
    """
    every = []
    shared = candidates(budget)
    for loss in losses:
        for number, point in enumerate(shared):
            every.append(Trial(loss, loss, point["learning_rate"], number, "rate"))
        space = _space(loss)
        if not budget.parameters or not space:
            continue
        for number, point in enumerate(candidates(budget, space)):
            rate = point.pop("learning_rate")
            own = parse_loss(_with(loss, point), extra_files)
            every.append(Trial(loss, own, rate, number, "parameters"))
    return every


def _space(loss: LossSpec) -> dict[str, tuple[float, float]]:
    """Return the ranges that a single loss declares for its own parameters, without those that the experiment
    fixes.
    """
    if len(loss.terms) != 1 or loss.terms[0].entry is None:
        return {}
    term = loss.terms[0]
    space = {}
    for name, ends in (term.entry.meta.get("tune") or {}).items():
        numeric = len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
        if numeric and name not in term.given:
            space[name] = tuple(ends)
    return space


def _with(loss: LossSpec, point: dict[str, Any]) -> str:
    term = loss.terms[0]
    return render(term.name, {**term.given, **point})


def experiments(experiment: Experiment, budget: Budget) -> list[tuple[Experiment, list[Trial]]]:
    """Return one ordinary experiment for each learning rate: trials are cells like any other, so they resume
    and spread like any other.
    """
    # A rate that was chosen on the seeds that are reported would be chosen on their luck.
    if any(seed >= TUNING_SEEDS for seed in experiment.seeds):
        raise UserError(
            f"seeds from {TUNING_SEEDS} on are kept for tuning; the experiment '{experiment.name}' "
            "reports them"
        )
    seeds = tuple(range(TUNING_SEEDS, TUNING_SEEDS + budget.seeds))
    by_rate: dict[float, list[Trial]] = defaultdict(list)
    for trial in trials(experiment.losses, budget, experiment.extra_files):
        by_rate[trial.learning_rate].append(trial)
    every = []
    for rate, members in by_rate.items():
        variants = []
        for variant in experiment.datasets:
            recipe = variant.recipe.model_copy(update={"learning_rate": rate})
            variants.append(variant._replace(recipe=recipe))
        losses = tuple({trial.loss.text: trial.loss for trial in members}.values())
        part = Part(experiment.name, seeds, losses, tuple(variants))
        every.append((replace(experiment, parts=(part,), rates=None), members))
    return every


def plan(experiment: Experiment, budget: Budget, results: Path) -> plans.Plan:
    """Return the plan of all trials."""
    cells = {cell.key: cell for tried, _ in experiments(experiment, budget) for cell in tried.cells()}
    return plans.plan(experiment, results, list(cells.values()))


def finish(experiment: Experiment, budget: Budget, results: Path, file: Path) -> list[dict[str, Any]]:
    """Write the choices to ``file``, all trials and the expected-best curves beside the results; return the
    choices.
    """
    rows = collect(experiment, budget, results)
    chosen = choose(rows, budget)
    if not chosen:
        why = "no loss has all its trials recorded yet; the same command goes on with them"
        raise UserError(f"{results}: {why}")
    facts = {
        "experiment": experiment.name,
        "trials": budget.trials,
        "tuning_seeds": [TUNING_SEEDS + i for i in range(budget.seeds)],
        "sampler": f"QMCSampler(seed={budget.sampler_seed}, scramble=True)",
        "learning_rates": [point["learning_rate"] for point in candidates(budget)],
        "objective": budget.objective,
        "equal_budget": len({item["trials"] for item in chosen}) == 1,
    }
    rates.write(file, facts, chosen)
    searches: dict[tuple[str, str, str], list[dict]] = defaultdict(list)
    for row in rows:
        searches[row["data"], row["loss"], row["kind"]].append(row)
    for members in searches.values():
        best = expected_best([row["objective"] for row in members])
        for row in members:
            row["expected_best"] = best[row["number"]]  # of number + 1 trials
    folder = results / "tuning"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{experiment.name}.csv").open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    return chosen


def collect(experiment: Experiment, budget: Budget, results: Path) -> list[dict[str, Any]]:
    """Return one row for each trial and data set whose cells are all recorded: its objective is the mean over
    the tuning seeds.
    """
    store = Store(results)
    rows = []
    for tried, members in experiments(experiment, budget):
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cell in as_recorded(tried.cells(), store):
            record = store.read(*cell.pair)
            if record is not None:
                value = record["metrics"].get(budget.objective)
                # A collapsed or not-finite trial is a result: the worst one.
                known = value is not None and math.isfinite(value)
                values[cell.data.text, cell.loss.text].append(value if known else 0.0)
        for trial in members:
            for variant in tried.datasets:
                over_seeds = values[variant.data.text, trial.loss.text]
                if len(over_seeds) == budget.seeds:
                    rows.append(_row(variant.data.text, trial, sum(over_seeds) / budget.seeds))
    return sorted(rows, key=lambda row: (row["data"], row["loss"], row["kind"] != "rate", row["number"]))


def _row(data: str, trial: Trial, objective: float) -> dict[str, Any]:
    return {
        "data": data,
        "loss": trial.base.text,
        "kind": trial.kind,
        "number": trial.number,
        "as": trial.loss.text,
        "learning_rate": trial.learning_rate,
        "objective": objective,
    }


def choose(rows: list[dict[str, Any]], budget: Budget) -> list[dict[str, Any]]:
    """Return for each data set and loss the best learning rate, and the best own parameters where they were
    searched.

    Ties go to the smaller rate. ``edge`` is true when the best rate is the smallest or largest candidate:
    then the range was too narrow."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["data"], row["loss"]].append(row)
    chosen = []
    for (data, loss), members in groups.items():
        tried = [row for row in members if row["kind"] == "rate"]
        if len(tried) != budget.trials:  # fewer trials would be an unfair search
            continue
        tried.sort(key=lambda row: row["learning_rate"])
        # max keeps the first of equal objectives: the smallest rate.
        best = max(tried, key=lambda row: row["objective"])
        item = {
            "data": data,
            "loss": loss,
            "learning_rate": best["learning_rate"],
            "objective": best["objective"],
            "trials": len(tried),
            "edge": best in (tried[0], tried[-1]),
        }
        own = [row for row in members if row["kind"] == "parameters"]
        if own:
            top = max(own, key=lambda row: row["objective"])
            item["own_parameters"] = {
                "loss": top["as"],
                "learning_rate": top["learning_rate"],
                "objective": top["objective"],
                "trials": len(own),
            }
        chosen.append(item)
    return chosen


def expected_best(values: list[float]) -> list[float]:
    """Return the expected best of n of these trials, drawn without replacement, for n = 1 .. len(values).

    E[max of n] = sum_i v_(i) C(i-1, n-1) / C(N, n) over the values in ascending order (Dodge et al. 2019,
    without replacement)."""
    ordered, total = sorted(values), len(values)
    return [
        sum(v * math.comb(i, n - 1) for i, v in enumerate(ordered)) / math.comb(total, n)
        for n in range(1, total + 1)
    ]
