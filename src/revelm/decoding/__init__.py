"""Which token, which positions: pure tensor rules, with no model, cache or request in sight."""
