"""What is believed about accuracy at the target, ImageNet, and why."""
