"""From v1.Pod to CRI messages: pure functions, one module for each part of a pod."""
