"""Batteries: YAML files to items and lm-eval tasks. Importing this loads neither torch nor lm-eval."""

from capgap.battery.document import YamlDocument, read_yaml
from capgap.battery.items import Item
from capgap.battery.loading import Battery, find_battery, list_batteries, load_battery
from capgap.battery.preparation import PreparedTask, prepare, training_items
from capgap.battery.scoring import score_generation
from capgap.battery.spec import json_schema

__all__ = [
    "Battery",
    "YamlDocument",
    "Item",
    "PreparedTask",
    "find_battery",
    "json_schema",
    "list_batteries",
    "load_battery",
    "prepare",
    "read_yaml",
    "score_generation",
    "training_items",
]
