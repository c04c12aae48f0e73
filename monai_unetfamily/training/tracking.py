"""A training told to MLflow as it goes: MONAI's own handlers and settings, added to a bundle's workflow."""

from copy import deepcopy
from importlib.util import find_spec
from typing import Any

from monai.bundle import DEFAULT_EXP_MGMT_SETTINGS, ConfigParser, ConfigWorkflow
from monai.handlers import MLFlowHandler

_NEEDED = ("mlflow", "sqlalchemy", "alembic")  # the last two for the local store


def check_tracking(tracking: str | None) -> None:
    """Refuse a training that could not be tracked.

    Raises:
        ImportError: names the packages of the extra `tracking` that are missing.
        ValueError: a tracker that MONAI has no settings for.
    """
    if tracking is None:
        return
    if tracking not in DEFAULT_EXP_MGMT_SETTINGS:
        raise ValueError(f"tracking is {tracking!r}; {', '.join(DEFAULT_EXP_MGMT_SETTINGS)} is allowed: name it.")
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ImportError(
            f"tracking needs {', '.join(missing)}, which this environment lacks: "
            "pip install 'monai-unetfamily[tracking]'."
        )


def track(parser: ConfigParser, tracking: str) -> None:
    """Add handlers to a train config that log losses, scores, parameters and the config itself.

    MONAI's settings stand in place of the bundle's own, which could lead anywhere.

    Args:
        parser: of the config, in which nothing is resolved yet.
        tracking: "mlflow". The local store goes to `logs/mlruns.db`, the config to `logs/config_DATE.json`.
    """
    settings: dict[str, Any] = deepcopy(DEFAULT_EXP_MGMT_SETTINGS[tracking])
    shared = {key: value for key, value in settings["configs"].items() if key not in settings["handlers_id"]}
    device = {"_target_": "torch.device", "device": str(parser["device"])}  # as a file can hold it
    for key, value in {**shared, "output_dir": "$@bundle_root + '/logs'", "device": device}.items():
        parser[key] = value
    settings["configs"]["trainer"]["close_on_complete"] = False  # the last validation is still to come
    ConfigWorkflow.patch_bundle_tracking(parser, settings)


def end_tracking(parser: ConfigParser) -> None:
    """Tell MLflow that a run is finished, one that `track` began."""
    for handler in parser.get_parsed_content("train#handlers"):
        if isinstance(handler, MLFlowHandler):
            handler.close()
