//! Keys that change while they are used, and checks that come and go.

mod callers;
mod changes;
mod uses;
