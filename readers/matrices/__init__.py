"""Matrices of numbers in files: npy and safetensors."""
