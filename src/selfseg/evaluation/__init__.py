"""Measuring embeddings by the field's protocols; see docs/protocols.md.

Begin at `evaluator` (one run) or `comparison` (several), asked by `settings`; `sheet` has the results
of one thing that is measured, by each of `protocols/`, whose passes over the images are in `measure/`.
"""

from selfseg.evaluation.evaluator import evaluate, evaluate_extractors
from selfseg.evaluation.measure.features import Extractor, embedder_extractor
from selfseg.evaluation.measure.results import format_table, markdown_table, read_results
from selfseg.evaluation.protocols.clusters import Clusters
from selfseg.evaluation.protocols.linear import Linear
from selfseg.evaluation.protocols.object_vectors import Objects, Retrieval
from selfseg.evaluation.protocols.prototypes import Prototypes
from selfseg.evaluation.settings import Beside, Reading
from selfseg.evaluation.sheet import EvaluationConfig

__all__ = [
    "Beside",
    "Clusters",
    "EvaluationConfig",
    "Extractor",
    "Linear",
    "Objects",
    "Prototypes",
    "Reading",
    "Retrieval",
    "embedder_extractor",
    "evaluate",
    "evaluate_extractors",
    "format_table",
    "markdown_table",
    "read_results",
]
