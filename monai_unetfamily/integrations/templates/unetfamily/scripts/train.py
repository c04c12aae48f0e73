"""The training of a fold, as Auto3DSeg starts it: `python scripts/train.py run --config_file=FILE --num_epochs=2`."""

import fire

from monai_unetfamily.integrations.auto3dseg import run

if __name__ == "__main__":
    fire.Fire({"run": run})
