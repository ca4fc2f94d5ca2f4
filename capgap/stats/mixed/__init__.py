"""Crossed mixed-effects logistic regression of outcomes on capability and covariates.

`formula` and `coding` read what is asked, `outcomes` what was observed; `terms` chooses the random terms, `model` puts
all together; `kernels` (and `chance`) and `laplace` are the likelihood; `inference`, `deviations`, `margins` and
`alternative_estimators` are the numbers; `fit` goes from one to the other, `result` is what comes out.
"""

from capgap.stats.mixed.fit import fit_mixed
from capgap.stats.mixed.outcomes import OutcomeGrid
from capgap.stats.mixed.result import MixedFit

__all__ = ["MixedFit", "OutcomeGrid", "fit_mixed"]
