"""Batteries: YAML files to items and lm-eval tasks. Importing this loads neither torch nor lm-eval."""

from capgap.battery.answer_scoring import score_generation
from capgap.battery.battery_loading import Battery, list_batteries, load_battery
from capgap.battery.battery_spec import json_schema
from capgap.battery.items import Item
from capgap.battery.prepared_task import PreparedTask
from capgap.battery.task_preparation import prepare_battery, training_items
from capgap.battery.yaml_document import read_yaml

__all__ = [
    "Battery",
    "Item",
    "PreparedTask",
    "json_schema",
    "list_batteries",
    "load_battery",
    "prepare_battery",
    "read_yaml",
    "score_generation",
    "training_items",
]
