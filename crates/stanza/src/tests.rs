//! Tests of the codecs as a whole.

mod agreement;
mod examples;
mod expat;
mod golden;
mod hostile;
mod samples;
mod tables;
