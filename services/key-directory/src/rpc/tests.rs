//! Tests of the calls over real gRPC, by subject.

mod accounts;
mod consent;
mod garbage;
mod prekeys;
mod providers;
mod token_keys;
mod traces;
