"""From the registries to the catalogue: ``python -m nasbench_at.evaluation.registries`` writes it.

Here, because what a network costs is measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from blocks import block_info, list_blocks
from nasbench_at.config.catalogue import CATALOGUE_FILE, BlockEntry, Catalogue, ModelCosts
from nasbench_at.data.registry import find_loader, list_data_sets
from nasbench_at.evaluation.model_costs import measure_model
from nasbench_at.networks.zoo import list_families, list_models, model_info

__all__ = ["catalogue_json", "describe_registries"]


def describe_registries(known: Catalogue | None = None) -> Catalogue:
    """Returns what is in the registries, from whatever the package itself registers.

    Args:
        known: Take parameters and operations from here instead of counting them, which takes half
            a minute.
    """
    infos = [info for name in list_blocks() if _is_own((info := block_info(name)).build)]
    return Catalogue(
        blocks={
            info.name: BlockEntry(
                info.name, info.kind, info.summary, info.reference, dict(info.options)
            )
            for info in infos
        },
        models={name: _describe_model(name, known) for name in list_models()},
        families=list_families(),
        data_sets=[name for name in list_data_sets() if _is_own(find_loader(name))],
    )


def _is_own(build: Any) -> bool:
    return build.__module__.partition(".")[0] in ("blocks", "nasbench_at")


def _describe_model(name: str, known: Catalogue | None) -> ModelCosts:
    if known is None or name not in known.models:
        return measure_model(name)
    info = model_info(name)
    return replace(known.models[name], summary=info.summary, reference=info.reference)


def catalogue_json(content: Catalogue) -> str:
    """Returns the text of the catalogue's file."""
    plain = asdict(content)
    for part in ("blocks", "models"):
        for entry in plain[part].values():
            del entry["name"]
    for entry in plain["models"].values():
        del entry["seconds_per_step"]
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    CATALOGUE_FILE.write_text(catalogue_json(describe_registries()), "utf-8")
