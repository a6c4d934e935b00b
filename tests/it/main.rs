//! The one integration-test binary: it runs the real program against real and scripted dumpers.

mod support;

mod end_to_end;
mod support_tests;
