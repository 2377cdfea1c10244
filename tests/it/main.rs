//! The tests that need a real part: a file, a server, a socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod cli;
mod conformance;
mod control;
mod envoy;
mod evidence;
mod examples;
mod ext_authz;
mod feed;
mod forward_auth;
mod harness;
mod lifecycle;
mod log;
mod outages;
mod outranked;
mod postgres;
mod process;
mod restart;
mod secrecy;
mod sqlite;
mod structure;
mod transport;
mod witness;
mod write_path;
