"""What runs in the process of one model."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch

from modelzoo import measure
from modelzoo.catalogue import catalogue
from spaces.blame import first_line

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

with contextlib.suppress(ImportError):  # a peer, which need not be there
    from modelzoo import peer


def work(label: str, role: str, sender: Connection) -> None:
    """Measure one model and send its record in pieces; whatever it raises becomes ``error``."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # What models print would run through the progress display.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)

    def send(message: dict[str, Any]) -> None:
        sender.send(message)

    entry = catalogue()[label]
    try:
        (measure.measure if role == "ours" else peer.compare)(entry, send)
    except Exception as error:  # a foreign model may raise anything
        send({"error": first_line(error)})
    sender.close()
    sys.stdout.flush()
    os._exit(0)  # some models take seconds to be taken apart
