"""The tasks, by name and in the order in which all code goes through them."""

from typing import Any, Literal

from lib.tasks import age, gender
from lib.tasks.task import Task

TaskName = Literal[age.Name, gender.Name]
"""The names, as choices for the command line."""
TASKS: dict[str, Task[Any]] = {task.name: task for task in (age.AGE, gender.GENDER)}
GROUPS = {**{name: task.groups_key for name, task in TASKS.items()}, "group": "by_group"}
"""Keys of the figures by groups of faces, by what the groups are made of."""
