"""What MONAI Label's app monaibundle needs with MONAI 1.6; append it to the app's main.py."""

from typing import Any

from monailabel.tasks.infer.bundle import BundleInferTask as _BundleInferTask


class BundleInferTask(_BundleInferTask):  # type: ignore[no-redef]
    """MONAI Label's own, with the file's name kept from the transforms, and the network of the metadata.

    MONAI's Spacingd takes each key that begins with "image_" for a dictionary of metadata; MONAI Label has the file's
    name at "image_path", and needs it again when it writes. MONAI Label reads no metadata into the config, where our
    configs have the network.
    """

    def _load_bundle_config(self, path: str, config: str) -> Any:
        loaded = super()._load_bundle_config(path, config)
        if loaded.get("network_def") == "@_meta_#network":
            target = "monai_unetfamily.bundles.build_chosen_network"
            loaded.config["network_def"] = {"_target_": target, "bundle_root": "@bundle_root"}
        return loaded

    def run_pre_transforms(self, data: dict[str, Any], transforms: Any) -> dict[str, Any]:
        """Keep the name from the transforms."""
        path = data.pop("image_path", None)
        return dict(super().run_pre_transforms(data, transforms)) | ({} if path is None else {"image_path": path})
