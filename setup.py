from setuptools import setup

setup(
    packages=["fastdd"],
)
