"""Imported by every Python process that has this folder on its path: it may die, by kill -9, while it changes a disk.

It does where what it opens for writing or renames lies in a folder NAME beside which there is a folder NAME.killed: one
change in six, until so many processes have died that there is a file for each in that folder: MOST of them.
"""

import os
import random
import signal
import sys

MOST = 9  # a task may be begun eleven times
_dice = random.Random(os.getpid())


def _die(event, arguments):
    if event == "open":
        path, flags = arguments[0], arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
    elif event == "os.rename":
        path = arguments[0]
    else:
        return
    deaths = f"{os.path.dirname(os.fspath(path))}.killed" if isinstance(path, (str, os.PathLike)) else ""
    if deaths and os.path.isdir(deaths) and _dice.random() < 1 / 6 and len(os.listdir(deaths)) < MOST:
        os.mkdir(os.path.join(deaths, str(os.getpid())))
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_die)
