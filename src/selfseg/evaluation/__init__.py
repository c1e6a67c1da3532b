"""Measuring embeddings by the field's protocols; see docs/protocols.md."""

from selfseg.evaluation.evaluator import evaluate, evaluate_extractors
from selfseg.evaluation.measure.features import Extractor, embedder_extractor
from selfseg.evaluation.measure.results import format_table, markdown_table, read_results
from selfseg.evaluation.protocols.clusters import ClustersConfig
from selfseg.evaluation.protocols.linear import LinearConfig, linear_lbfgs, linear_sgd
from selfseg.evaluation.protocols.object_vectors import ObjectsConfig, reference_objects
from selfseg.evaluation.protocols.prototypes import PrototypesConfig
from selfseg.evaluation.sheet import EvaluationConfig

__all__ = [
    "ClustersConfig",
    "EvaluationConfig",
    "Extractor",
    "LinearConfig",
    "ObjectsConfig",
    "PrototypesConfig",
    "embedder_extractor",
    "evaluate",
    "evaluate_extractors",
    "format_table",
    "linear_lbfgs",
    "linear_sgd",
    "markdown_table",
    "read_results",
    "reference_objects",
]
