"""Rule-based rewards: pure scoring of texts, without torch, models or settings (sections 2.2.2 and 2.3.2)."""
