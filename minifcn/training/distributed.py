"""Several processes that train together, started by an MPI launcher: `mpiexec -n N python -m mpi4py -m minifcn train`.

Every process is a rank of one World. All ranks run the same program on replicas of one state; what they exchange are
sums. Rank 0 alone writes and speaks.

A rank that fails must not leave the others waiting. Where all of them meet anyway (`agree`), an error of one ends all
in good order, and rank 0 can save first. Anywhere else the rank says its sentence and aborts the job.
"""

from __future__ import annotations

import atexit
import functools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from minifcn import threads
from minifcn.array import Array, device_of, module_of, to_device
from minifcn.training.interrupt import Interrupted, signal_of

T = TypeVar("T")

# (rank, size) as launchers tell them: MPICH and Intel MPI, Open MPI, Slurm's srun --mpi=pmix (with pmi2 as MPICH)
_RANKS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)
_FINE, _FAILED = 0.0, -1.0  # or, of a rank that was interrupted, the signal's number
_PATIENCE = 3.0  # seconds that another rank waits for rank 0 to say the same first


class FailedElsewhere(SystemExit):
    """Another rank has failed, or been interrupted, and says so; this one ends in silence with its exit code. It is no
    KeyboardInterrupt and no Exception, so that nothing on the way takes it for an error of its own."""


class World:
    """All ranks that train together; this class itself is the world of a process that is alone.

    >>> world = World()
    >>> world.rank, world.size
    (0, 1)
    """

    rank = 0
    size = 1
    _agreed = False  # that all end
    _ended = False

    def gather(self, array: Array) -> Array:
        """The arrays of all ranks, (…) → (size, …), by rank; all ranks call it, with one shape."""
        return array[None]

    def sum(self, array: Array) -> None:
        """The sum over all ranks, in place of a contiguous array; all ranks call it, with one shape."""

    def texts(self, own: str) -> list[str]:
        """The texts of all ranks, by rank; all ranks call it."""
        return [own]

    def first(self, work: Callable[[], T]) -> T:
        """What work() returns on rank 0, the only one that calls it; on all ranks."""
        return work()

    def agree(
        self, error: BaseException | None = None, facts: Sequence[float] | NDArray[np.float64] = ()
    ) -> NDArray[np.float64]:
        """The facts of all ranks (size, k), once all have come. Where one came with an error, none goes on.

        Args:
            error: what went wrong on this rank.
            facts: k numbers, as many on every rank.

        Raises:
            KeyboardInterrupt: where a rank brought one, on every rank: its own, or one of the highest signal.
            FailedElsewhere: where another rank failed, or an earlier one as well.
            BaseException: the error that was given, on the first rank that has one.
        """
        kind = _FINE if error is None else signal_of(error) if isinstance(error, KeyboardInterrupt) else _FAILED
        table: NDArray[np.float64] = self.gather(np.array([kind, *facts], np.float64))
        kinds = table[:, 0]
        self._agreed = bool(kinds.any())
        if (kinds == _FAILED).any():
            if error is not None and int(np.argmax(kinds == _FAILED)) == self.rank:
                raise error
            raise FailedElsewhere(2)
        if kinds.any():
            raise error or Interrupted(number=int(kinds.max()))
        return table[:, 1:]

    def together(self, work: Callable[[], T]) -> T:
        """What work() returns on this rank, once it has ended on all; where it failed on one, all end as in `agree`."""
        try:
            result = work()
        except (Exception, KeyboardInterrupt) as error:
            self.agree(error)
            raise
        self.agree()
        return result

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Within the block, an error of this rank ends all ranks when the process ends; not a SystemExit of 0."""
        try:
            yield
        except BaseException as error:
            code: object = 2
            if isinstance(error, SystemExit):
                code = error.code
            elif isinstance(error, KeyboardInterrupt):
                code = 128 + signal_of(error)
            if code and not self._ended:
                self._ended = True
                self._end(int(code) if isinstance(code, int) else 1)
            raise

    def _end(self, code: int) -> None:
        pass


class MpiWorld(World):
    """The ranks of an MPI communicator.

    Args:
        comm: an mpi4py communicator.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi, self._comm = MPI, comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        local = comm.Split_type(MPI.COMM_TYPE_SHARED)  # the ranks on this machine
        self._share_processors(local)
        gpus = visible_gpus()
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[local.Get_rank() % len(gpus)]
        self._own_gpus = bool(comm.allreduce(local.Get_size() <= len(gpus), op=MPI.LAND))
        self._nccl: Any = None

    @staticmethod
    def _share_processors(local: Any) -> None:
        """As many threads as each rank's part of the processors, unless somebody set their number before. A launcher
        may have given each rank processors of its own."""
        own = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()
        sharing = local.allgather(own).count(own)
        if threads.get_num_threads() == threads.CORES:
            threads.set_num_threads(max(1, threads.CORES // sharing))

    def gather(self, array: Array) -> Array:
        own = np.asarray(to_device(array, "cpu"), order="C")  # ascontiguousarray would give a number an axis
        every = np.empty((self.size, *own.shape), own.dtype)
        self._comm.Allgather(own, every)
        return every if isinstance(array, np.ndarray) else to_device(every, device_of(array))

    def sum(self, array: Array) -> None:
        if isinstance(array, np.ndarray):
            self._comm.Allreduce(self._mpi.IN_PLACE, array, op=self._mpi.SUM)
        elif self._own_gpus:
            self._sum_by_nccl(array)
        else:
            host = to_device(array, "cpu")
            self._comm.Allreduce(self._mpi.IN_PLACE, host, op=self._mpi.SUM)
            array[...] = to_device(host, device_of(array))

    def _sum_by_nccl(self, array: Array) -> None:
        """From GPU to GPU. One rank alone has called it, on one GPU; between two GPUs it has not been run."""
        from cupy.cuda import nccl

        if self._nccl is None:
            identity = self._comm.bcast(nccl.get_unique_id() if self.rank == 0 else None, root=0)
            self._nccl = nccl.NcclCommunicator(self.size, identity, self.rank)
        kind = nccl.NCCL_FLOAT64 if array.dtype == np.float64 else nccl.NCCL_FLOAT32
        where, stream = cast(Any, array).data.ptr, module_of(array).cuda.get_current_stream().ptr
        self._nccl.allReduce(where, where, array.size, kind, nccl.NCCL_SUM, stream)

    def texts(self, own: str) -> list[str]:
        every: list[str] = self._comm.allgather(own)
        return every

    def first(self, work: Callable[[], T]) -> T:
        result: T = self._comm.bcast(work() if self.rank == 0 else None, root=0)
        return result

    def _end(self, code: int) -> None:
        if self._agreed:  # all ranks are here
            self._comm.Barrier()
            self._mpi.Finalize()
            return
        if self.rank != 0:
            time.sleep(_PATIENCE)  # what went wrong on all is said by rank 0, whose end is ours as well
        atexit.register(self._abort, code)

    def _abort(self, code: int) -> None:
        with suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                _wait_until_read(stream.fileno())
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # our sentence is out, and MPI's remark on it adds nothing
        self._comm.Abort(code)


def _wait_until_read(descriptor: int) -> None:
    """Until the launcher has read what is in our pipe to it: an abort may throw away what it has not."""
    if sys.platform == "win32" or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return
    import fcntl
    import termios

    end = time.monotonic() + _PATIENCE
    while any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))) and time.monotonic() < end:
        time.sleep(0.01)


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, size) as an MPI launcher tells them; (0, 1) for a process that none has started.

    >>> launched({"PMI_RANK": "1", "PMI_SIZE": "2"}), launched({})
    ((1, 2), (0, 1))
    """
    for rank, size in _RANKS:
        if rank in environment and size in environment:
            return int(environment[rank]), int(environment[size])
    return 0, 1


def visible_gpus(environment: Mapping[str, str] = os.environ, driver: str = "/proc/driver/nvidia/gpus") -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES names them. CUDA itself may not be asked: it would read the variable
    then, and never again.

    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"})
    ['2', '3']
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    folder = Path(driver)
    return [str(k) for k, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


@functools.cache
def find_world() -> World:
    """The world that this process was started in: one of several ranks under an MPI launcher, else alone.

    Raises:
        ImportError: under a launcher, where mpi4py is not installed.
        RuntimeError: where mpi4py belongs to another MPI than the launcher.
    """
    rank, size = launched()
    if size == 1:
        return World()
    try:
        return _mpi_world(size)
    except (ImportError, RuntimeError) as error:
        if rank != 0:  # they all find the same
            raise FailedElsewhere(2) from error
        raise


def _mpi_world(size: int) -> World:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # it raises RuntimeError where it finds no MPI library
        raise ImportError(
            f'train: {size} processes were started together, but mpi4py cannot be used ({error}); pip install ".[mpi]" '
            "brings it, with an MPI"
        ) from error
    if MPI.COMM_WORLD.Get_size() != size:
        raise RuntimeError(
            f"train: the launcher started {size} processes, but mpi4py sees {MPI.COMM_WORLD.Get_size()}; the mpiexec "
            "of the MPI that mpi4py uses is needed"
        )
    return MpiWorld(MPI.COMM_WORLD)
