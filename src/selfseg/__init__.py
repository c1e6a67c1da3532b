"""selfseg: a folder of unlabelled images becomes a semantic segmenter.

Everything public is listed here and loaded when it is first used, so that `import selfseg` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from selfseg.version import __version__ as __version__

if TYPE_CHECKING:
    from selfseg.clusterer.estimator import PixelClusterer as PixelClusterer
    from selfseg.collection.check import check_data as check_data
    from selfseg.collection.clustering import cluster as cluster
    from selfseg.collection.clusters import load_clusters as load_clusters
    from selfseg.collection.concepts import concepts as concepts
    from selfseg.collection.embedding import embed as embed
    from selfseg.collection.opening import load as load
    from selfseg.collection.picturing.film import film as film
    from selfseg.collection.picturing.probabilities import probabilities as probabilities
    from selfseg.collection.reporting.report import report as report
    from selfseg.collection.segmenting import segment as segment
    from selfseg.evaluation.comparison import compare as compare
    from selfseg.evaluation.evaluator import evaluate as evaluate
    from selfseg.evaluation.nearest import nearest as nearest
    from selfseg.evaluation.protocols.clusters import Clusters as Clusters
    from selfseg.evaluation.protocols.few_labels import finetune as finetune
    from selfseg.evaluation.protocols.linear import Linear as Linear
    from selfseg.evaluation.protocols.object_vectors import Objects as Objects
    from selfseg.evaluation.protocols.object_vectors import Retrieval as Retrieval
    from selfseg.evaluation.protocols.prototypes import Prototypes as Prototypes
    from selfseg.evaluation.protocols.transfer import transfer as transfer
    from selfseg.evaluation.settings import Beside as Beside
    from selfseg.evaluation.settings import Reading as Reading
    from selfseg.exporting.export import export as export
    from selfseg.masks.mining import mine_masks as mine_masks
    from selfseg.methods import BYOL as BYOL
    from selfseg.methods import DINO as DINO
    from selfseg.methods import IIC as IIC
    from selfseg.methods import STEGO as STEGO
    from selfseg.methods import BYOLConfig as BYOLConfig
    from selfseg.methods import DenseCL as DenseCL
    from selfseg.methods import DenseCLConfig as DenseCLConfig
    from selfseg.methods import DetCon as DetCon
    from selfseg.methods import DetConConfig as DetConConfig
    from selfseg.methods import DINOConfig as DINOConfig
    from selfseg.methods import IICConfig as IICConfig
    from selfseg.methods import InstanceDiscrimination as InstanceDiscrimination
    from selfseg.methods import InstanceDiscriminationConfig as InstanceDiscriminationConfig
    from selfseg.methods import MaskContrast as MaskContrast
    from selfseg.methods import MaskContrastConfig as MaskContrastConfig
    from selfseg.methods import Method as Method
    from selfseg.methods import MoCo as MoCo
    from selfseg.methods import MoCoConfig as MoCoConfig
    from selfseg.methods import ModifiedDeepCluster as ModifiedDeepCluster
    from selfseg.methods import ModifiedDeepClusterConfig as ModifiedDeepClusterConfig
    from selfseg.methods import PiCIE as PiCIE
    from selfseg.methods import PiCIEConfig as PiCIEConfig
    from selfseg.methods import PixPro as PixPro
    from selfseg.methods import PixProConfig as PixProConfig
    from selfseg.methods import SlotCon as SlotCon
    from selfseg.methods import SlotConConfig as SlotConConfig
    from selfseg.methods import STEGOConfig as STEGOConfig
    from selfseg.methods import SwAV as SwAV
    from selfseg.methods import SwAVConfig as SwAVConfig
    from selfseg.methods import ViCE as ViCE
    from selfseg.methods import ViCEConfig as ViCEConfig
    from selfseg.models.embedder import Embedder as Embedder
    from selfseg.models.embedder import EmbedderConfig as EmbedderConfig
    from selfseg.models.published.importing import import_weights as import_weights
    from selfseg.segmenter.applying import apply as apply
    from selfseg.segmenter.segmenter import Segmenter as Segmenter
    from selfseg.segmenter.segmenter import load_segmenter as load_segmenter
    from selfseg.studio.carrying.naming import name_clusters as name_clusters
    from selfseg.studio.studio import Studio as Studio
    from selfseg.timing.steps import TimingConfig as TimingConfig
    from selfseg.timing.steps import time_recipe as time_recipe
    from selfseg.training.doctor import doctor as doctor
    from selfseg.training.loop import train as train
    from selfseg.training.recipe import OptimizerConfig as OptimizerConfig
    from selfseg.training.recipe import Recipe as Recipe
    from selfseg.training.recipe import recipes as recipes
    from selfseg.types import Batch as Batch
    from selfseg.types import EvalResult as EvalResult
    from selfseg.types import StepOutput as StepOutput
    from selfseg.types import View as View

_WHERE = {
    "BYOL": "selfseg.methods",
    "BYOLConfig": "selfseg.methods",
    "Batch": "selfseg.types",
    "Beside": "selfseg.evaluation.settings",
    "Clusters": "selfseg.evaluation.protocols.clusters",
    "DINO": "selfseg.methods",
    "DINOConfig": "selfseg.methods",
    "DenseCL": "selfseg.methods",
    "DenseCLConfig": "selfseg.methods",
    "DetCon": "selfseg.methods",
    "DetConConfig": "selfseg.methods",
    "Embedder": "selfseg.models.embedder",
    "EmbedderConfig": "selfseg.models.embedder",
    "EvalResult": "selfseg.types",
    "IIC": "selfseg.methods",
    "IICConfig": "selfseg.methods",
    "InstanceDiscrimination": "selfseg.methods",
    "InstanceDiscriminationConfig": "selfseg.methods",
    "Linear": "selfseg.evaluation.protocols.linear",
    "MaskContrast": "selfseg.methods",
    "MaskContrastConfig": "selfseg.methods",
    "Method": "selfseg.methods",
    "MoCo": "selfseg.methods",
    "MoCoConfig": "selfseg.methods",
    "ModifiedDeepCluster": "selfseg.methods",
    "ModifiedDeepClusterConfig": "selfseg.methods",
    "Objects": "selfseg.evaluation.protocols.object_vectors",
    "OptimizerConfig": "selfseg.training.recipe",
    "PiCIE": "selfseg.methods",
    "PiCIEConfig": "selfseg.methods",
    "PixPro": "selfseg.methods",
    "PixProConfig": "selfseg.methods",
    "PixelClusterer": "selfseg.clusterer.estimator",
    "Prototypes": "selfseg.evaluation.protocols.prototypes",
    "Reading": "selfseg.evaluation.settings",
    "Recipe": "selfseg.training.recipe",
    "Retrieval": "selfseg.evaluation.protocols.object_vectors",
    "STEGO": "selfseg.methods",
    "STEGOConfig": "selfseg.methods",
    "Segmenter": "selfseg.segmenter.segmenter",
    "SlotCon": "selfseg.methods",
    "SlotConConfig": "selfseg.methods",
    "StepOutput": "selfseg.types",
    "Studio": "selfseg.studio.studio",
    "SwAV": "selfseg.methods",
    "SwAVConfig": "selfseg.methods",
    "TimingConfig": "selfseg.timing.steps",
    "ViCE": "selfseg.methods",
    "ViCEConfig": "selfseg.methods",
    "View": "selfseg.types",
    "apply": "selfseg.segmenter.applying",
    "check_data": "selfseg.collection.check",
    "cluster": "selfseg.collection.clustering",
    "compare": "selfseg.evaluation.comparison",
    "concepts": "selfseg.collection.concepts",
    "doctor": "selfseg.training.doctor",
    "embed": "selfseg.collection.embedding",
    "evaluate": "selfseg.evaluation.evaluator",
    "export": "selfseg.exporting.export",
    "film": "selfseg.collection.picturing.film",
    "finetune": "selfseg.evaluation.protocols.few_labels",
    "import_weights": "selfseg.models.published.importing",
    "load": "selfseg.collection.opening",
    "load_clusters": "selfseg.collection.clusters",
    "load_segmenter": "selfseg.segmenter.segmenter",
    "mine_masks": "selfseg.masks.mining",
    "name_clusters": "selfseg.studio.carrying.naming",
    "nearest": "selfseg.evaluation.nearest",
    "probabilities": "selfseg.collection.picturing.probabilities",
    "recipes": "selfseg.training.recipe",
    "report": "selfseg.collection.reporting.report",
    "segment": "selfseg.collection.segmenting",
    "time_recipe": "selfseg.timing.steps",
    "train": "selfseg.training.loop",
    "transfer": "selfseg.evaluation.protocols.transfer",
}

__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'selfseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
