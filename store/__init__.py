"""Where conversations are kept: implementations of the store port in :mod:`chat.ports`."""
