"""What methods minimise, as functions of tensors.

`losses` (swapped prediction, InfoNCE, balanced cross-entropy, and what is logged of them), `pixel_contrast` (pixels
against objects, MaskContrast), `mutual_information` (IIC) and `sinkhorn` (equal assignment to prototypes).
"""
