# SPDX-License-Identifier: Apache-2.0
"""Why the DAG processor's parent does or does not import a module: asked of the policy and the ledger it uses."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostfork.airflow.learning import DagFileLearner
from frostfork.airflow.no_database import no_database
from frostfork.airflow.remembering import ledger_path
from frostfork.airflow.settings import load
from frostfork.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Explanation:
    """The decision for one module, and what it rests on. Seconds and bytes are means over the children."""

    module: str
    preload: bool
    reason: str
    distribution: str | None
    children: int
    all_children: int
    files: list[str]
    all_files: int
    seconds: float
    saving: float
    bytes: int
    findings: list[tuple[str, str]] | None  # kind and detail; None if no canary was asked
    ledger: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(module: str, *, canary: bool) -> Explanation:
    """Decide about a module as the DAG processor would. Raises LedgerError if no child imported it yet."""
    import airflow.dag_processing.manager  # noqa: F401 - what the parent has anyway
    from airflow import settings as airflow_settings

    settings = load()
    path = ledger_path(settings)
    if path is None:
        raise LedgerError("[frostfork] ledger is empty, so nothing is kept of what children imported")
    learner = DagFileLearner(settings, airflow_settings.PLUGINS_FOLDER, asks_only=True)
    for folder in _bundle_folders():
        learner.add_folder(folder)
    local_names = learner.folders.names()
    preloader = learner.preloader
    record = preloader.ledger.get(module)
    if record is None:
        children = preloader.ledger.children
        raise LedgerError(f"of the {children} children in {path}, none imported {module}")
    verdict = None
    if canary and preloader.canary is not None and module not in sys.modules:
        trial = preloader.canary.start(
            [module],
            deny=preloader.policy.forbidden,
            local_names=local_names,
            tolerates=preloader.policy.tolerates,
            around=no_database,
        )
        with trial:
            verdict = trial.wait().get(module)
    plan = preloader.policy.plan(
        preloader.ledger,
        loaded=[name for name in sys.modules if preloader.ledger.get(name)],
        local_names=local_names,
        verdicts={} if verdict is None else {module: verdict},
    )
    decision = plan.decisions[module]
    return Explanation(
        module=module,
        preload=decision.preload,
        reason=decision.reason,
        distribution=preloader.policy.installed.distribution(module),
        children=record.children,
        all_children=preloader.ledger.children,
        files=sorted(preloader.ledger.sources_of(module)),
        all_files=len(preloader.ledger.sources),
        seconds=record.seconds / max(1, record.children),
        saving=decision.saving,
        bytes=decision.bytes,
        findings=None
        if verdict is None
        else [(finding.kind, finding.detail) for finding in verdict.findings],
        ledger=path,
    )


def _bundle_folders() -> Iterator[str]:
    """Folders of DAG bundles that lie on this machine; others would have to be fetched first."""
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        bundles = list(DagBundlesManager().get_all_dag_bundles())
    except Exception as error:  # whatever a bundle's class, or its import, raises
        raise ConfigurationError(f"Airflow cannot make its DAG bundles: {error}") from error
    for bundle in bundles:
        if isinstance(bundle, LocalDagBundle):
            yield str(bundle.path)
