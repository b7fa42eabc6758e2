"""Read models: what pages, API and commands show, as frozen dataclasses of one snapshot. Nothing here writes."""
