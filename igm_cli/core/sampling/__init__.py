"""Images from concepts, by a composed model: the reverse process, correctors, particles, and OR by mixtures."""

from igm_cli.core.sampling.composed import Composed
from igm_cli.core.sampling.correctors import Hamiltonian, Langevin
from igm_cli.core.sampling.mixture import sample_any
from igm_cli.core.sampling.reverse import sample

__all__ = ["Composed", "Hamiltonian", "Langevin", "sample", "sample_any"]
