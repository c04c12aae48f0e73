"""What MONAI Label's app monaibundle needs with MONAI 1.6; append it to the app's main.py."""

from typing import Any

from monailabel.tasks.infer.bundle import BundleInferTask as _BundleInferTask


class BundleInferTask(_BundleInferTask):  # type: ignore[no-redef]
    """MONAI Label's own, with the file's name kept from the transforms.

    MONAI's Spacingd takes each key that begins with "image_" for a dictionary of metadata; MONAI Label has the file's
    name at "image_path", and needs it again when it writes.
    """

    def run_pre_transforms(self, data: dict[str, Any], transforms: Any) -> dict[str, Any]:
        """Keep the name from the transforms."""
        path = data.pop("image_path", None)
        return dict(super().run_pre_transforms(data, transforms)) | ({} if path is None else {"image_path": path})
