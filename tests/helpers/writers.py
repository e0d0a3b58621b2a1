"""Programs that write a file, and a way to kill them halfway."""

KILL = """
import os, signal, sys
from pathlib import Path

path = Path(sys.argv[1])
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing renamed
"""
WRITERS = {
    "manifest.csv": "from cloudcover.data import tables; tables.QUARANTINE.write(tables.QUARANTINE.empty(), path)",
    "model.json": "from cloudcover.runtime.files import write_json; write_json(path, {'weights_sha256': '0'})",
    "mask.tif": "import numpy; from cloudcover.predict.outputs import write_mask; "
    "write_mask(path, numpy.zeros((8, 8), numpy.uint8), '', (10, 0, 0, 0, -10, 0))",
    "epoch-00003.ckpt": "from cloudcover.runtime.files import atomic\n"
    "with atomic(path) as part: part.write_bytes(b'half')",
}
