"""AGMC and GNN-RL: a network as a graph, an encoder of it, and policies that are trained with the encoder."""
