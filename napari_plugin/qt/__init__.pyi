from .background_work import LatestTask as LatestTask
from .background_work import keep_programs as keep_programs
from .class_table import ROW as ROW
from .class_table import ClassTable as ClassTable
from .text import Line as Line
from .text import breakable as breakable
from .text import fit as fit
from .text import plain as plain
