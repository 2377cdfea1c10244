//! What only the embedded engine must do.

mod faults;
mod fixture;
mod large;
mod opening;
mod process;
mod sharing;

pub(crate) use fixture::Embedded;
