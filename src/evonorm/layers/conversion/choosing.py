"""Which layer goes where: one name for all sites, names or globs of sites with a layer each, or a function of names."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping

from evonorm.layers import table
from evonorm.spelling import nearest

Layers = str | Mapping[str, str | None] | Callable[[str], str | None]


class Choice:
    """The layer of each site by the site's name, None to keep the norm; a function is asked once for each.

    Of a mapping a site's own name counts first, then the first glob that matches. Raises TypeError if `layer` is none
    of the three, ValueError if a layer is unknown.
    """

    def __init__(self, layer: Layers) -> None:
        self.layer = layer
        self._asked: dict[str, str | None] = {}
        if isinstance(layer, str):
            table.get(layer)
        elif isinstance(layer, Mapping):
            for name in layer.values():
                if name is not None:
                    table.get(name)
        elif not callable(layer):
            raise TypeError(
                "layer must be a layer's name, a dict of sites' names or globs to layers' names, or a function from a "
                f"site's name to a layer's: got {type(layer).__name__}"
            )

    @property
    def written(self) -> str | dict[str, str | None] | None:
        """As a plan keeps it: a function is told by the sites alone."""
        if isinstance(self.layer, str):
            return self.layer
        return dict(self.layer) if isinstance(self.layer, Mapping) else None

    def at(self, site: str) -> str | None:
        """The layer for the site of this name. Raises ValueError or TypeError if a function gives no layer's name."""
        if isinstance(self.layer, str):
            return self.layer
        if isinstance(self.layer, Mapping):
            keys = (key for key in self.layer if key == site or fnmatch.fnmatchcase(site, key))
            key = site if site in self.layer else next(keys, None)
            return None if key is None else self.layer[key]
        if site not in self._asked:
            name = self.layer(site)
            if name is not None and not isinstance(name, str):
                raise TypeError(f"layer({site!r}) must give a layer's name or None: got {type(name).__name__}")
            if name is not None:
                table.get(name)
            self._asked[site] = name
        return self._asked[site]

    def check(self, model: str, sites: Iterable[str]) -> None:
        """Raises ValueError if a key of a mapping is for no site."""
        if not isinstance(self.layer, Mapping):
            return
        names = list(sites)
        for key in self.layer:
            if key not in names and not fnmatch.filter(names, key):
                near = nearest(key, names, 3) or names[:3]
                hint = f"there are {', '.join(near)}" if near else "it has none"
                glob = f"; for all that begin with it write {key + '.*'!r}" if any(
                    name.startswith(f"{key}.") for name in names
                ) else ""  # fmt: skip
                raise ValueError(f"layer: the key {key!r} matches no normalization of {model}: {hint}{glob}")
