"""The tasks, by name and in the order in which all code goes through them."""

from typing import Any, Literal

from lib.tasks import age, gender
from lib.tasks.task import Task

TaskName = Literal[age.Name, gender.Name]
TASKS: dict[TaskName, Task[Any]] = {"age": age.AGE, "gender": gender.GENDER}
BREAKDOWNS = {**{name: task.breakdown_key for name, task in TASKS.items()}, "group": "by_group"}
"""Keys of the figures by groups of faces, by what the groups are made of."""
