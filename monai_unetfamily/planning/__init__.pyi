from .planner import plan_dataset as plan_dataset
