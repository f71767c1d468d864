"""Models of the latency of candidates; `billhook.search.latency` chooses and makes one."""
