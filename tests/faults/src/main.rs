//! `causeway-faults`: runs the ledger test, checks a finished run.

fn main() {}
