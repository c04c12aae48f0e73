"""A layer that is removed must not end the process.

Mesa's software rasterizers (22.3, as of machines without a GPU and of remote desktops) read freed memory once a GL
program was deleted that had drawn before: after a layer of vispy's is removed, the next drawing of another ends the
process, with every correction that was not saved. The widget adds and removes layers, so it sees to it: programs are
kept, some kB for each layer that is removed, until the window is closed.
"""

import sys

from vispy.gloo.glir import GlirProgram


def keep_programs() -> None:
    """Let vispy delete no GL program while its window is open, where Mesa may draw; a second call changes nothing."""
    if sys.platform == "linux":
        GlirProgram.delete = _keep


def _keep(program: GlirProgram) -> None:
    """GL frees it with its context."""
