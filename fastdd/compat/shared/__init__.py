"""What several families stand on: where draws come from, augmentation in few passes, constants."""
