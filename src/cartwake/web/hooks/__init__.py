"""What carriers tell us: verified, stored, answered. Acting on it is the worker's business."""
