"""Configurations that start the papers' fine-tuning in detectron2 and MMSegmentation, beside an exported backbone.

    detectron2    NAME_coco_1x.yaml, NAME_coco_2x.yaml                      Mask R-CNN with FPN
    mmseg         NAME_voc12aug.py, NAME_cityscapes.py, NAME_ade20k.py      FCN

They are whole, so that no file of a version of these projects is leaned on, and hold SlotCon's settings (X. Wen et al.,
NeurIPS 2022, arXiv 2205.15288, appendix A.2), as `selfseg transfer` has them; its figures were made in these projects.
The settings of MMSegmentation are those of its versions from 1.0 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfseg.exporting.targets import Resnet, resnet_of
from selfseg.models.embedder import EmbedderConfig
from selfseg.models.start import Colours


def fine_tuning_configs(format: str, name: str, config: EmbedderConfig, colours: Colours) -> dict[str, str]:
    """The files of a format, by name.

    Args:
        format: "detectron2" or "mmseg"; others have none.
        name: of the weights' file, beside which they will lie.
        config: of the embedder.
        colours: mean and deviation that the backbone expects.
    """
    stem = name.removesuffix(".pth")
    if format == "detectron2":
        _, arch = resnet_of(config, format)
        return {f"{stem}_{task}.yaml": _detection(name, arch, colours, factor) for task, factor in _DETECTION.items()}
    if format == "mmseg":
        _, arch = resnet_of(config, format)
        return {f"{stem}_{task.name}.py": _segmentation(name, arch, colours, task) for task in _SEGMENTATION}
    return {}


_DETECTION = {"coco_1x": 1, "coco_2x": 2}


def _detection(name: str, arch: Resnet, colours: Colours, factor: int) -> str:
    mean, std = (", ".join(f"{255 * value:.6g}" for value in each) for each in colours)
    resnet = [f"    DEPTH: {arch.depth}", '    OUT_FEATURES: ["res2", "res3", "res4", "res5"]', '    NORM: "SyncBN"']
    # torchvision's blocks have the stride in the 3x3 convolution.
    resnet += ["    RES2_OUT_CHANNELS: 64"] if arch.basic else ["    STRIDE_IN_1X1: False"]
    if (arch.groups, arch.width) != (1, 64):
        resnet += [f"    NUM_GROUPS: {arch.groups}", f"    WIDTH_PER_GROUP: {arch.width}"]
    steps = ", ".join(str(step * factor) for step in (60_000, 80_000))
    return f"""\
# Mask R-CNN with FPN on COCO, {factor}x, from {name}; detectron2's own script trains it, on eight GPUs with
#   python tools/train_net.py --num-gpus 8 --config-file {name.removesuffix(".pth")}_coco_{factor}x.yaml
# Run it beside the weights, or give their place: MODEL.WEIGHTS /path/to/{name}
VERSION: 2
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  WEIGHTS: "{name}"
  PIXEL_MEAN: [{mean}]
  PIXEL_STD: [{std}]
  MASK_ON: True
  BACKBONE:
    NAME: "build_resnet_fpn_backbone"
    FREEZE_AT: 0
  RESNETS:
{chr(10).join(resnet)}
  FPN:
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    NORM: "SyncBN"
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"]
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 1000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: "StandardROIHeads"
    IN_FEATURES: ["p2", "p3", "p4", "p5"]
  ROI_BOX_HEAD:
    NAME: "FastRCNNConvFCHead"
    NUM_FC: 2
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NAME: "MaskRCNNConvUpsampleHead"
    NUM_CONV: 4
    POOLER_RESOLUTION: 14
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  STEPS: ({steps})
  MAX_ITER: {90_000 * factor}
  WARMUP_ITERS: 1000
INPUT:
  FORMAT: "RGB"
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
  MIN_SIZE_TEST: 800
TEST:
  PRECISE_BN:
    ENABLED: True
"""


@dataclass(frozen=True)
class _Task:
    """A fine-tuning to segmentation; the defaults are MoCo's protocol, on VOC and Cityscapes.

    Attributes:
        name: as of `selfseg transfer`.
        classes: C.
        dataset: its class in MMSegmentation.
        root: where its documents put the data.
        train: folders and lists of the training set, of several sets one after the other.
        val: of the measured one.
        scale: (long, short) side in px that images are resized to at most.
        crop: in px.
        steps: iterations.
        lr: learning rate for 16 images.
        standard: whether heads and augmentation are those of MMSegmentation's 80k schedule.
    """

    name: str
    classes: int
    dataset: str
    root: str
    train: Sequence[str]
    val: str
    scale: tuple[int, int]
    crop: int
    steps: int
    lr: float
    standard: bool = False


def _folders(images: str, labels: str) -> str:
    return f"data_prefix=dict(img_path={images!r}, seg_map_path={labels!r}),"


_SEGMENTATION = (
    _Task(
        "voc12aug",
        21,
        "PascalVOCDataset",
        "data/VOCdevkit/VOC2012",
        (
            f"{_folders('JPEGImages', 'SegmentationClass')} ann_file='ImageSets/Segmentation/train.txt',",
            f"{_folders('JPEGImages', 'SegmentationClassAug')} ann_file='ImageSets/Segmentation/aug.txt',",
        ),
        f"{_folders('JPEGImages', 'SegmentationClass')} ann_file='ImageSets/Segmentation/val.txt',",
        (2049, 513),
        513,
        30_000,
        0.003,
    ),
    _Task(
        "cityscapes",
        19,
        "CityscapesDataset",
        "data/cityscapes",
        (_folders("leftImg8bit/train", "gtFine/train"),),
        _folders("leftImg8bit/val", "gtFine/val"),
        (2049, 1025),
        769,
        90_000,
        0.01,
    ),
    _Task(
        "ade20k",
        150,
        "ADE20KDataset",
        "data/ade/ADEChallengeData2016",
        (_folders("images/training", "annotations/training"),),
        _folders("images/validation", "annotations/validation"),
        (2048, 512),
        512,
        80_000,
        0.01,
        standard=True,
    ),
)


def _segmentation(name: str, arch: Resnet, colours: Colours, task: _Task) -> str:
    mean, std = (", ".join(f"{255 * value:.6g}" for value in each) for each in colours)
    wide = 512 if arch.basic else 2048
    kind = "type='ResNet'"
    if arch.groups > 1:
        kind = f"type='ResNeXt', groups={arch.groups}, base_width={arch.width}"
    zero_label = ", reduce_zero_label=True" if task.name == "ade20k" else ""
    crop = f"crop_size=crop{', cat_max_ratio=0.75' if task.standard else ''}"
    colours_change = "    dict(type='PhotoMetricDistortion'),\n" if task.standard else ""
    if task.standard:
        strides, dilations, weight_decay = "(1, 2, 1, 1)", "(1, 1, 2, 4)", 5e-4
        head = "channels=512, num_convs=2, concat_input=True, dropout_ratio=0.1, align_corners=False"
        auxiliary = f"""dict(
        type='FCNHead', in_channels={wide // 2}, in_index=2, channels=256, num_convs=1, concat_input=False,
        dropout_ratio=0.1, align_corners=False, num_classes={task.classes}, norm_cfg=norm,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    )"""
        schedule = f"dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end={task.steps}, by_epoch=False)"
    else:
        strides, dilations, weight_decay = "(1, 2, 2, 1)", "(1, 1, 1, 2)", 1e-4
        head = "channels=256, num_convs=2, dilation=6, concat_input=False, dropout_ratio=0, align_corners=True"
        auxiliary = "None"
        milestones = [task.steps * 7 // 10, task.steps * 9 // 10]
        schedule = f"dict(type='MultiStepLR', milestones={milestones}, gamma=0.1, by_epoch=False)"
    sets = [
        f"dict(\n        type={task.dataset!r}, data_root={task.root!r}, pipeline=train_pipeline,\n"
        f"        {each}\n    )"
        for each in task.train
    ]
    train = sets[0] if len(sets) == 1 else f"dict(type='ConcatDataset', datasets=[{', '.join(sets)}])"
    return f"""\
# FCN on {task.name} from {name}; MMSegmentation 1.x trains it, on two GPUs with
#   bash tools/dist_train.sh {name.removesuffix(".pth")}_{task.name}.py 2
# The weights lie beside this file. A single GPU takes the whole batch: batch_size=16, and BN in the place of SyncBN.
default_scope = 'mmseg'
norm = dict(type='SyncBN', requires_grad=True)
crop = ({task.crop}, {task.crop})
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[{mean}], std=[{std}], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255, size=crop,
    ),
    backbone=dict(
        {kind}, depth={arch.depth}, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch',
        strides={strides}, dilations={dilations}, contract_dilation=True, norm_cfg=norm, norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='{{{{ fileDirname }}}}/{name}', prefix='backbone.'),
    ),
    decode_head=dict(
        type='FCNHead', in_channels={wide}, in_index=3, {head},
        num_classes={task.classes}, norm_cfg=norm,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head={auxiliary},
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'{zero_label}),
    dict(type='RandomResize', scale={task.scale}, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', {crop}),
    dict(type='RandomFlip', prob=0.5),
{colours_change}    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale={task.scale}, keep_ratio=True),
    dict(type='LoadAnnotations'{zero_label}),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8, num_workers=4, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset={train},
)
val_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='{task.dataset}', data_root='{task.root}', pipeline=test_pipeline,
        {task.val}
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr={task.lr}, momentum=0.9, weight_decay={weight_decay:g}),
)
param_scheduler = [{schedule}]
train_cfg = dict(type='IterBasedTrainLoop', max_iters={task.steps}, val_interval={task.steps // 10})
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval={task.steps // 10}),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
"""
