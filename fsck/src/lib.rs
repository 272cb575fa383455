//! Checks a volume without changing it.
