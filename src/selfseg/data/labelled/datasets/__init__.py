"""The data sets that the command line knows by name.

Each module has one layout, as its publisher documents it. Nothing else in the package knows their names.
"""

from selfseg.data.labelled.datasets.ade20k import ADE20K
from selfseg.data.labelled.datasets.base import DataSet as DataSet
from selfseg.data.labelled.datasets.base import Files as Files
from selfseg.data.labelled.datasets.bdd100k import BDD100K
from selfseg.data.labelled.datasets.camvid import CAMVID
from selfseg.data.labelled.datasets.cityscapes import CITYSCAPES19, CITYSCAPES27
from selfseg.data.labelled.datasets.coco import COCO, COCO21, COCO27, COCO171
from selfseg.data.labelled.datasets.folders import FOLDER
from selfseg.data.labelled.datasets.imagenet import IMAGENET
from selfseg.data.labelled.datasets.voc import VOC

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        VOC,
        COCO27,
        COCO171,
        COCO21,
        COCO,
        CITYSCAPES19,
        CITYSCAPES27,
        ADE20K,
        BDD100K,
        CAMVID,
        IMAGENET,
        FOLDER,
    )
}
"""Every data set by name."""
