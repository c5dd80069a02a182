# amaranth: UnusedElaboratable=no
"""Tests of wrong parameters of rtl/pe/memory_port.py."""
import pytest

from rtl.pe.memory_port import MemoryPort


@pytest.mark.parametrize("clients", [1, 4])
def test_wrong_number_of_clients_is_refused(clients):
    with pytest.raises(ValueError, match="2 or 3"):
        MemoryPort(clients=clients)
