"""A bar for a whole training, with the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ignite.engine import Engine, Events
from tqdm import tqdm

from monai_unetfamily.training.history import last_step

_STEPS = 1000
_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left {postfix}"


@contextmanager
def shown_progress(trainer: Engine, share: Callable[[], float]) -> Iterator[None]:
    """Draw a bar on a terminal while the trainer runs, none elsewhere.

    Args:
        trainer: a MONAI trainer, whose output has a loss.
        share: of the training that is done, 0 to 1.
    """
    bar = tqdm(total=_STEPS, bar_format=_FORMAT, disable=None, leave=False, dynamic_ncols=True)

    def begin() -> None:
        bar.initial = bar.n = int(_STEPS * share())  # resumed: what was done took none of the time that is shown

    def step(engine: Engine) -> None:
        bar.set_description_str(f"epoch {engine.state.epoch}", refresh=False)
        bar.set_postfix_str(f"loss {last_step(engine)[0]:.3f}", refresh=False)
        bar.update(int(_STEPS * share()) - bar.n)

    trainer.add_event_handler(Events.STARTED, begin)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, step)
    with bar:
        yield
