"""Gradient matching under differentiable Siamese augmentation (DSA; Zhao and Bilen, ICML 2021)."""

from fastdd.methods.dc import Dc, GradientSettings


class Dsa(Dc):
    """Gradient matching whose real and synthetic images are augmented alike."""

    about = "gradient matching with Siamese augmentation"
    source = "Zhao and Bilen, ICML 2021"
    Settings = GradientSettings
