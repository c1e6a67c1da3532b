"""Measuring embeddings by the field's protocols; see docs/protocols.md."""

from selfseg.evaluation.clusters import ClustersConfig
from selfseg.evaluation.features import Extractor, embedder_extractor
from selfseg.evaluation.linear import LinearConfig
from selfseg.evaluation.prototypes import PrototypesConfig
from selfseg.evaluation.results import format_table, read_results
from selfseg.evaluation.run import EvaluationConfig, evaluate, evaluate_extractors

__all__ = [
    "ClustersConfig",
    "EvaluationConfig",
    "Extractor",
    "LinearConfig",
    "PrototypesConfig",
    "embedder_extractor",
    "evaluate",
    "evaluate_extractors",
    "format_table",
    "read_results",
]
