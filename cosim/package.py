"""A whole package, simulated alone."""
from cosim.cluster import HOST_MEMORY_BYTES, Cluster
from cosim.member import Configuration, Member

__all__ = ["Configuration", "Package"]


class Package(Member):
    """A running package with its host memory: a cluster of one; a context manager.

    The result is the same for any ``threads`` and ``processes``.

    Parameters
    ----------
    name, size : str
        Package, see ``chiplets.packages``; ``name`` may also be a description of one's own.
    threads, processes : int
        Workers that step the dies; one of the two must be 1.
    waves : pathlib.Path
        Write FST waveforms to ``<waves>.<die>.<model>.fst``; slower.
    trace : pathlib.Path
        Write what every unit did to this file at the end, for Perfetto.
    record : bool
        Keep what every unit did, for ``engine.events()``, without writing it.
    broken : list of (int, int, int)
        Die, row and column of PEs that do not work: their outputs are random in every cycle.
    gating : bool
        Leave out the evaluation of idle models; changes nothing but the speed.
    network : bool
        With the network chiplets, whose NICs are connected to nothing.
    """

    def __init__(self, name="mtia450", size="sim", *, threads=1, processes=1, waves=None,
                 trace=None, record=False, gating=True, broken=(),
                 host_memory_bytes=HOST_MEMORY_BYTES, network=False):
        self._cluster = cluster = Cluster(
            [name], size, threads=threads, processes=processes, waves=waves, trace=trace,
            record=record, gating=gating, broken=[(0, *pe) for pe in broken],
            host_memory_bytes=host_memory_bytes, network=network, prefixed=False)
        super().__init__(cluster.engine, cluster.packages[0], build_seconds=cluster.build_seconds,
                         cold_build_seconds=cluster.cold_build_seconds)

    def close(self):
        """Write the trace, stop the workers; ``host_memory`` stays readable."""
        self._cluster.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
