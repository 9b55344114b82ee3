"""What the package uses of Dask and scikit-learn that their documentation does not promise.

The modules here import such names, so that a new version which drops one breaks a single line: `dask`,
`distributed`, `dashboard` (which needs bokeh) and `sklearn`. They stand apart, so that importing one does not
import the others. `ATTRIBUTES` lists what is used of objects at run time, which no import can check.

`pytest --noconftest tests/test_compat.py` says which names the installed versions lack, and who uses them.
"""

from __future__ import annotations

#: Owner -> attribute -> modules that use it. Workers and tasks are those in the scheduler's dictionaries;
#: its handlers are the questions that a client can ask it.
ATTRIBUTES: dict[str, dict[str, str]] = {
    "distributed.Client": {"_scheduler_identity": "cluster/origins.py"},
    "distributed.Client.loop": {"asyncio_loop": "cluster/scheduler.py"},
    "distributed.Scheduler": {
        "clients": "cluster/clock.py, dashboard/board.py",
        "http_application": "dashboard/server.py, cli/session.py",
        "plugins": "cluster/clock.py",
        "tasks": "cluster/waiting.py",
        "workers": "cluster/clock.py, cluster/waiting.py",
    },
    "distributed.Scheduler.handlers": {
        "events": "cluster/distributed.py",
        "get_error_cause": "cluster/distributed.py",
        "identity": "cluster/scheduler.py",
        "log_event": "cluster/distributed.py",
        "who_has": "cluster/distributed.py",
    },
    "distributed.Scheduler.tasks": {
        "dependencies": "cluster/waiting.py",
        "dependents": "cluster/waiting.py",
        "key": "cluster/waiting.py",
        "processing_on": "cluster/waiting.py",
        "state": "cluster/waiting.py",
        "who_has": "cluster/waiting.py",
    },
    "distributed.Scheduler.workers": {
        "address": "cluster/waiting.py",
        "nthreads": "cluster/clock.py",
        "processing": "cluster/waiting.py",
    },
    "distributed.Worker": {
        "handlers": "cluster/comm/dask.py",
        "security": "cluster/comm/dask.py, cluster/comm/tcp.py",
    },
    "distributed.Worker.loop": {"asyncio_loop": "cluster/comm/dask.py"},
    "distributed.Worker.state": {"all_running_tasks": "cluster/liveness.py"},
    "distributed.KilledWorker": {"allowed_failures": "cluster/faults.py"},
    "dask.array.Array": {"_meta": "data/inputs.py, data/shuffle.py"},
    "dask.dataframe.DataFrame": {"_meta": "data/columns.py, data/partitions.py, data/preprocessing.py"},
    "dask.dataframe.DataFrame.expr": {"_name": "data/partitions.py"},
    "sklearn.base.BaseEstimator": {"_validate_params": "data/preprocessing.py, estimators/base.py"},
    "sklearn.neural_network.MLPClassifier": {
        "_best_coefs": "estimators/conversion.py",
        "_best_intercepts": "estimators/conversion.py",
        "_label_binarizer": "estimators/conversion.py",
        "_no_improvement_count": "estimators/conversion.py",
        "_parameter_constraints": "data/preprocessing.py, estimators/mlp.py",
    },
}
