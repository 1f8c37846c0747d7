"""The phones: when they are asked, what they draft, keep and send."""
