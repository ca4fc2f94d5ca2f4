"""Numbers of other programs on one simulated study, and how they were had.

python -m tests.stats.mixed.references prototype FOLDER    FOLDER holds the prototype's laplace.py
python -m tests.stats.mixed.references glmm                glmm 0.6.2, numpy 2.4
python -m tests.stats.mixed.references mixedlm             mixedlm 1.3.0
"""

import sys

import numpy as np

from tests.stats.mixed.world import Study, columns_of

STUDY = Study(24, 12, 30, task_slope=0.0)
SEED = 5


def prototype(folder: str) -> None:
    sys.path.insert(0, folder)
    from laplace import CrossedLogit  # type: ignore[import-not-found]

    grid, students = STUDY.draw(SEED), STUDY.students()
    x = np.column_stack(
        [np.log(students["n_examples"]), students["adaptation"] == "lora", np.log(students["n_params"])]
    )
    x = np.column_stack([np.ones(len(x)), x - x.mean(axis=0)])
    cap = np.repeat([-0.5, 0.5], 6)
    data = {
        "Y": grid.successes.astype(float),
        "N": np.ones(grid.successes.shape),
        "K": 12,
        "task": np.repeat(np.arange(12), 30),
        "cap": cap,
        "Xc": np.stack([np.column_stack([x[:, :1], c * x[:, :1], x[:, 1:], c * x[:, 1:]]) for c in cap]),
    }
    fit = CrossedLogit(data, ("item", "task", "stu", "slope", "st")).fit(gtol=1e-6)
    print("beta", fit.beta_bc.tolist())
    print("se", fit.se.tolist())
    print("df", fit.satterthwaite().tolist())
    print("sigma", fit.theta.tolist())
    point = np.log([1.0, 0.4, 0.3, 0.2, 0.2])
    other = CrossedLogit(data, ("item", "task", "stu", "slope", "st"))
    value, gradient = other.objective(point)
    print("objective", -value, (-gradient).tolist())


def frame() -> dict[str, np.ndarray]:
    """The long table with the columns that packages understand; student x capability as a grouping of its own."""
    data = columns_of(STUDY.draw(SEED))
    n, p = (np.log(data[c]) for c in ("n_examples", "n_params"))
    return {
        "score": data["score"],
        "cap": np.where(data["capability"] == "reasoning", 0.5, -0.5),
        "n": n - n.mean(),
        "a": np.where(data["adaptation"] == "lora", 0.5, -0.5),
        "p": p - p.mean(),
        "item": data["item"].astype(str),
        "student": data["student"],
        "task": data["task"],
        "sc": np.char.add(data["student"].astype(str), data["capability"].astype(str)),
        "st": np.char.add(data["student"].astype(str), data["task"].astype(str)),
    }


FORMULA = "score ~ cap + n + a + p + cap:n + cap:a + cap:p + (1|item) + (1|task) + (1|student) + (1|sc) + (1|st)"


def with_glmm() -> tuple[dict[str, float], dict[str, float]]:
    """Fixed effects and variances of `glmm`."""
    import glmm  # type: ignore[import-not-found]

    fit = glmm.fit(frame(), FORMULA, "binomial")
    variances = dict(zip(("item", "task", "student", "sc", "st"), map(float, fit.tau2), strict=True))
    return dict(zip(fit.names, map(float, fit.beta), strict=True)), variances


def with_mixedlm() -> dict[str, float]:
    """Fixed effects of `mixedlm`."""
    import mixedlm  # type: ignore[import-not-found]
    import pandas as pd

    fit = mixedlm.glmer(FORMULA, pd.DataFrame(frame()), family=mixedlm.families.Binomial())
    return {k: float(v) for k, v in fit.fixef().items()}


if __name__ == "__main__":
    if sys.argv[1] == "prototype":
        prototype(sys.argv[2])
    else:
        print({"glmm": with_glmm, "mixedlm": with_mixedlm}[sys.argv[1]]())
