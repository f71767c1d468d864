"""Noise falls from episode to episode; a trusted policy begins with its own opinion."""

from __future__ import annotations

from billhook.search.encoder.decoder_search import Noise


def test_noise_is_even_at_first_then_falls_to_its_least() -> None:
    noise = Noise(warmup=2, sigma=0.5, decay=0.5, least=0.1)
    assert [noise.of(e) for e in range(6)] == [None, None, 0.5, 0.25, 0.125, 0.1]


def test_a_trusted_policy_begins_without_noise() -> None:
    noise = Noise(warmup=0, sigma=0.2, decay=1.0, trusted=True)
    assert [noise.of(e) for e in range(3)] == [0.0, 0.2, 0.2]
