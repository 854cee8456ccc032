//! Whole-system tests: the harness in src, one integration binary with a file per scenario
