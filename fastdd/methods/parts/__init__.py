"""What methods share: how stored images become seen ones, networks over time, draws of real images, training."""
