"""Which of several processes tells people of an error that all of them may have: the main one, unless it has none.

They meet at the store of torchrun's agent, which is there before a process group is and after it has been left.
"""

import os
from datetime import timedelta

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # its stubs hide it

PATIENCE = timedelta(seconds=30)
"""How long another process waits for the main one to have the same error: they start within seconds of each other."""


def speaks_of(error: str, *, patience: timedelta = PATIENCE) -> bool:
    """Whether this process, which ends with ``error``, is to say so: others with the words of the main one need not.

    Without torchrun's store nobody knows of the others, and everybody speaks.
    """
    rank = int(os.environ.get("RANK", "0"))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    key = f"revelm/error/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(place, port, is_master=False, timeout=patience)
        if rank == 0:
            store.set(key, error)
            return True
        return bool(store.get(key).decode() != error)
    except DistError:  # the store is gone, or the main process has no error
        return True
