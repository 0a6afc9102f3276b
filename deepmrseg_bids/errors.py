"""Every error that the package raises on purpose.

::

    DeepMRSegError
    ├── UsageError              the command line or a configuration is wrong
    ├── DatasetError            BIDS_DIR or OUT_DIR cannot be used
    │   └── ForeignFileError    a file of somebody else is where one of ours should go
    ├── ImageError              one image cannot be used
    │   ├── ImageReadError      the file cannot be read
    │   ├── HeaderError         the header gives no usable position in space
    │   └── SignalError         there is nothing in it to segment
    ├── SegmentationError       the network's answer cannot be right
    ├── SkippedTask             an input that the task needs is not there
    ├── LabelTableError         a label table cannot be used
    ├── DeviceError             the GPU cannot do what it was asked for
    ├── BundleError             a model bundle is broken, changed or of another format
    ├── TemplateError           a TemplateFlow template is neither at hand nor to be had
    ├── RegistrationError       two images could not be brought onto each other
    ├── MetricError             a metric is asked of arrays that do not fit
    └── TrainingError           training cannot start or go on

A message says what was given, what was expected, and what to do.
"""

__all__ = [
    "BundleError",
    "DatasetError",
    "DeepMRSegError",
    "DeviceError",
    "ForeignFileError",
    "HeaderError",
    "ImageError",
    "ImageReadError",
    "LabelTableError",
    "MetricError",
    "RegistrationError",
    "SegmentationError",
    "SignalError",
    "SkippedTask",
    "TemplateError",
    "TrainingError",
    "UsageError",
]


class DeepMRSegError(Exception):
    """The root of every error raised on purpose: catch it at the edge of a session."""


class UsageError(DeepMRSegError):
    """The command line or a configuration is wrong."""


class DatasetError(DeepMRSegError):
    """BIDS_DIR or OUT_DIR cannot be used."""


class ForeignFileError(DatasetError):
    """A file of somebody else is where one of ours should go."""


class ImageError(DeepMRSegError):
    """One image cannot be used."""


class ImageReadError(ImageError):
    """The file cannot be read as a NIfTI image."""


class HeaderError(ImageError):
    """The header gives no usable position in space."""


class SignalError(ImageError):
    """There is nothing in the image to segment."""


class SegmentationError(DeepMRSegError):
    """The network's answer cannot be right (for example, no brain was found)."""


class SkippedTask(DeepMRSegError):
    """An input that the task needs is not there."""


class LabelTableError(DeepMRSegError):
    """A label table cannot be used."""


class DeviceError(DeepMRSegError):
    """The GPU cannot do what it was asked for."""


class BundleError(DeepMRSegError):
    """A model bundle is broken, changed or of another format."""


class TemplateError(DeepMRSegError):
    """A TemplateFlow template is neither at hand nor to be had."""


class RegistrationError(DeepMRSegError):
    """Two images could not be brought onto each other."""


class MetricError(DeepMRSegError):
    """A metric is asked of arrays that do not fit."""


class TrainingError(DeepMRSegError):
    """Training cannot start or go on."""
