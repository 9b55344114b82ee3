"""Pages of code, run from top to bottom, in a process that has little to import for it."""

import os
import subprocess
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import dask
import programs
from sklearn.exceptions import ConvergenceWarning


@dataclass(frozen=True)
class Block:
    """A block of code: its page, its first line, and why it does not run, if so."""

    page: Path
    line: int
    language: str
    source: str
    reason: str | None


def run_python(block, session):
    # Empty lines in front, so that tracebacks tell the line of the page.
    code = compile("\n" * block.line + block.source, block.page.name, "exec", dont_inherit=True)
    exec(code, session)


def run_shell(block, commands):
    script = block.source
    if block.language == "console":
        script = "\n".join(line[2:] for line in script.splitlines() if line.startswith("$ "))
    path = os.pathsep.join([commands, str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True, env=os.environ | {"PATH": path})


def run_page(blocks, folder, commands, scheduler):
    """Run the blocks of a page in this process, where commands are those of a folder first."""
    programs.serve_dask(commands)
    os.chdir(folder)
    dask.config.set(
        {"scheduler-address": scheduler, "distributed.worker.multiprocessing-method": "forkserver"}
    )
    os.environ["DASK_SCHEDULER_ADDRESS"] = scheduler
    os.environ["MPLBACKEND"] = "agg"
    warnings.simplefilter("error")
    # Pages train for a few epochs only; and pandas 3.1 discourages what dask.dataframe does to write Parquet.
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.filterwarnings("ignore", "The inplace keyword")
    # Another page may have a cluster, too.
    warnings.filterwarnings("ignore", "Port 8787 is already in use")
    session = {"__name__": "__main__"}
    for block in blocks:
        print(f"--- line {block.line}", flush=True)
        try:
            run_python(block, session) if block.language == "python" else run_shell(block, commands)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
