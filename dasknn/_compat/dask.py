"""Dask's own form of tasks, which it keeps to itself."""

from __future__ import annotations

from dask._task_spec import DataNode, GraphNode, Task, TaskRef, convert_legacy_graph

__all__ = ["DataNode", "GraphNode", "Task", "TaskRef", "convert_legacy_graph"]
