"""What to try next: proposals, promotions, the record of a run and its front."""
