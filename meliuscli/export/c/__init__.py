"""A network as a library in C11: its weights as constants, its kernels, and a program that tests them."""
