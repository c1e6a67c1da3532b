"""DICOM, by `pydicom`: one image, or several frames as pages.

    rescale slope, intercept   applied, as float32, where they aren't 1 and 0: Hounsfield units of a CT
    MONOCHROME1                inverted where no rescale gives the values a unit. In such files small values are bright:
                               the same bone would be dark in the images of one maker and bright in those of another
    palettes                   their colours
    YBR                        RGB
    pixel padding              no-data: the one value, or the range as `valid`
    windows (center, width)    ignored: they are a way of looking, and the collection's percentiles take their place

Files without DICOM's mark are refused, however they are named: anything can be taken for one of those.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.codestreams import check_codestream
from selfseg.data.reading.formats.base import Layout, Window, check_block, check_header, inside
from selfseg.data.reading.sniffing import Damage, words_of

_TAGS = (
    "SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated "
    "BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept "
    "Modality RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor "
    "BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData "
    "BluePaletteColorLookupTableData PixelSpacing SharedFunctionalGroupsSequence SOPClassUID"
).split()
_JPEG = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.7", "1.2.840.10008.1.2.4.8")
_DIRECTLY = {
    "1.2.840.10008.1.2.4.51": "jpeg8_decode",  # 12 bits, which Pillow doesn't read
    "1.2.840.10008.1.2.4.57": "ljpeg_decode",
    "1.2.840.10008.1.2.4.70": "ljpeg_decode",
    "1.2.840.10008.1.2.4.80": "jpegls_decode",
    "1.2.840.10008.1.2.4.81": "jpegls_decode",
}
"""Transfer syntaxes that pydicom needs plugins for, and the function of imagecodecs that decodes them."""
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.8.1")
_MOST_FRAMES = 100_000


class DicomImage:
    """An open DICOM file.

    Args:
        path: the file.
        max_pixels: the largest H * W; None = any.

    Raises:
        Damage: if it can't be read, or holds no image.
    """

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        import pydicom
        from pydicom.filereader import read_file_meta_info

        self._path, self._lock = path, threading.Lock()
        self._frame: tuple[int, NDArray[Any]] | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
                if self._syntax in _DEFLATED:
                    raise Damage("unreadable", "a deflated DICOM, whose size isn't known before it is unpacked")
                self._data: Any = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
                self.layout = self._look(max_pixels)
        except Damage:
            raise
        except MemoryError as error:
            raise Damage("too-large", "an element that claims more than the memory") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise Damage("unreadable", words_of(error)) from error
        except Exception as error:
            raise Damage("unreadable", words_of(error)) from error

    def _look(self, max_pixels: int | None) -> Layout:
        data = self._data
        if not (data.get("Rows") and data.get("Columns") and data.get("BitsAllocated")):
            raise Damage("unreadable", f"a DICOM without an image ({data.get('Modality') or 'no modality'})")
        height, width, frames = int(data.Rows), int(data.Columns), int(data.get("NumberOfFrames") or 1)
        samples, bits = int(data.get("SamplesPerPixel") or 1), int(data.BitsAllocated)
        self._photometric = str(data.get("PhotometricInterpretation") or "")
        palette = self._photometric == "PALETTE COLOR"
        channels = 3 if palette else samples
        if samples not in (1, 3) or bits not in (1, 8, 16, 32, 64):
            raise Damage("unreadable", f"{samples} samples of {bits} bits")
        if not 1 <= frames <= _MOST_FRAMES:
            raise Damage("too-large" if frames > 0 else "unreadable", f"{frames} frames")
        check_header(height, width, channels, max_pixels, itemsize=max(1, bits // 8))
        check_block(height * width * channels * max(1, bits // 8), "frame")
        native = self._syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
        needed = height * width * (2 if "422" in self._photometric else samples) * bits * frames // 8
        if native and (size := self._path.stat().st_size) < needed:
            raise Damage("truncated", f"{size} of more than {needed} bytes")
        slope, intercept = self._rescaling(data)
        self._scale = (
            None if palette or (slope, intercept) == (1.0, 0.0) else (np.float32(slope), np.float32(intercept))
        )
        self._inverted = self._photometric == "MONOCHROME1" and self._scale is None
        stored = np.dtype(f"{'i' if data.get('PixelRepresentation') == 1 else 'u'}{max(1, bits // 8)}")
        self._stored = np.dtype(f"f{bits // 8}") if bits >= 32 and "PixelRepresentation" not in data else stored
        if palette:
            depth = int(data.RedPaletteColorLookupTableDescriptor[2])
            self._stored = np.dtype(np.uint8 if depth <= 8 else np.uint16)
        padding, limit = (_signed(data.get(f"PixelPadding{name}"), self._stored) for name in ("Value", "RangeLimit"))
        self._range = None if padding is None or limit is None else (min(padding, limit), max(padding, limit))
        nodata = (
            None if padding is None or limit is not None else float(self._convert(np.full((1, 1, 1), padding)).item())
        )
        digits = len(str(frames - 1))
        spacing = data.get("PixelSpacing")
        details = {"modality": str(data.get("Modality") or "")} | (
            {"pixel size": f"{float(spacing[0]):g} x {float(spacing[1]):g} mm"} if spacing else {}
        )
        return Layout(
            kind="DICOM",
            height=height,
            width=width,
            channels=("",) * channels,
            dtype=np.dtype(np.float32) if self._scale else self._stored,
            pages=tuple(f"frame{i:0{digits}d}" for i in range(frames)) if frames > 1 else ("",),
            nodata=nodata,
            masked=self._range is not None,
            colour=channels == 3,
            details=details,
        )

    def _rescaling(self, data: Any) -> tuple[float, float]:
        source = data
        shared = data.get("SharedFunctionalGroupsSequence")
        if shared and "PixelValueTransformationSequence" in shared[0]:
            source = shared[0].PixelValueTransformationSequence[0]
        slope, intercept = (source.get(f"Rescale{name}") for name in ("Slope", "Intercept"))
        found = float(1 if slope is None else slope), float(0 if intercept is None else intercept)
        return found if np.isfinite(found).all() and found[0] != 0 else (1.0, 0.0)

    def _convert(self, stored: NDArray[Any]) -> NDArray[Any]:
        if self._scale is not None:
            return np.asarray(stored.astype(np.float32) * self._scale[0] + self._scale[1], np.float32)
        if self._inverted:
            if self._stored.kind == "i":
                return np.asarray(~stored)
            if self._stored.kind == "u":
                top = 2 ** int(self._data.get("BitsStored") or self._data.BitsAllocated) - 1
                return np.asarray(self._stored.type(top) - stored)
        return stored

    def _decode(self, page: int) -> NDArray[Any]:
        """(H, W, C) as stored."""
        if self._frame is not None and self._frame[0] == page:
            return self._frame[1]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._decode_frame(page)
        except (Damage, MemoryError):
            raise
        except Exception as error:
            words = words_of(error)
            short = any(
                word in words for word in ("less than", "fewer", "insufficient", "runcated", "end of", "reshape")
            )
            raise Damage("truncated" if short else "unreadable", words) from error
        found = found if found.ndim == 3 else found[:, :, None]
        expected = (self.layout.height, self.layout.width, len(self.layout.channels))
        if found.shape != expected:
            raise Damage("unreadable", f"pixels of shape {found.shape}, and the header says {expected}")
        self._frame = page, found.astype(self._stored, copy=False)
        return self._frame[1]

    def _decode_frame(self, page: int) -> NDArray[Any]:
        from pydicom import dcmread
        from pydicom.pixels.processing import apply_color_lut
        from pydicom.pixels.utils import pixel_array

        if self._syntax.startswith(_JPEG):
            import imagecodecs
            from pydicom.encaps import get_frame

            whole = dcmread(self._path, specific_tags=["PixelData", *_TAGS], defer_size=None)
            count = len(self.layout.pages)
            packed = get_frame(whole.PixelData, page, number_of_frames=count)
            jpeg2000 = self._syntax[-2:] in ("90", "91")
            most = 4 * self.layout.height * self.layout.width * len(self.layout.channels) * self._stored.itemsize
            check_codestream(packed, not jpeg2000, jpeg2000, most + (1 << 20))
            name = _DIRECTLY.get(self._syntax)
            if name is not None and not (name == "jpeg8_decode" and int(self._data.BitsAllocated) == 8):
                return np.asarray(getattr(imagecodecs, name)(packed))
        found = pixel_array(self._path, index=page)
        return np.asarray(apply_color_lut(found, self._data) if self._photometric == "PALETTE COLOR" else found)

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """(h, w, C) values; see `PixelFile.read`."""
        y, x, height, width = inside(self.layout, page, window, channels)
        with self._lock:
            part = self._decode(page)[y : y + height, x : x + width]
        part = part if channels is None else part[:, :, list(channels)]
        return np.array(self._convert(part), order="C")

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        """(h, w) bool, outside of the range of padding; None if none is given."""
        y, x, height, width = inside(self.layout, page, window, None)
        if self._range is None:
            return None
        with self._lock:
            part = self._decode(page)[y : y + height, x : x + width, 0]
        return np.asarray((part < self._range[0]) | (part > self._range[1]))

    def close(self) -> None:
        """Let go of the decoded frame."""
        self._frame = None


def _signed(value: Any, dtype: np.dtype[Any]) -> int | None:
    """A padding value as the pixels have it; files write -2000 as 63536, too."""
    if value is None or dtype.kind not in "ui":
        return None
    number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    limits = np.iinfo(dtype)
    if number > limits.max:
        number -= 2 ** (8 * dtype.itemsize)
    elif number < limits.min:
        number += 2 ** (8 * dtype.itemsize)
    return number if limits.min <= number <= limits.max else None
