"""The start of a program that imports torch and prints its help."""

import argparse

import torch

print(torch.__version__)
argparse.ArgumentParser(description="A trainer.").parse_args(["--help"])
