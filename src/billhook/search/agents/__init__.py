"""Reinforcement learning: a walk over the genes as an environment, and agents from Stable-Baselines3.

The files here need gymnasium and Stable-Baselines3; nothing outside imports them before they are used.
"""
