"""What the baselines share: data, networks, augmentation, seeds. Each baseline keeps its method to itself."""
