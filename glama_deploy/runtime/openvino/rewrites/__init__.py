"""The changes that make OpenVINO's models faster before they are compiled."""
