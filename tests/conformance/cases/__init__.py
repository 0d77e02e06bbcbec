"""The corpus: each module holds `FEATURES`, what is compared and how."""
