"""What methods minimise, as functions of tensors.

`losses` (swapped prediction, InfoNCE, balanced cross-entropy, and what is logged of them), `pixel_contrast` (pixels
against objects, MaskContrast) and `mutual_information` (IIC).
"""
