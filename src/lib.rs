//! Keystead answers one question for every request that enters a fleet: whose
//! API key is this, and may it do that?
//!
//! # The way of a request
//!
//! ```text
//! transport     gRPC, Envoy, forward-auth      decode, admission limit, deadline
//!   check       credential -> record -> decision: pure
//!     cache     memory: fresh, revalidating, stale-if-error
//!       fill    one lookup for each key, one query for many keys
//!         guard breaker; a bounded number of calls at once, each with a time-out
//!           store  PostgreSQL or SQLite
//!   feed        numbered changes of the store -> cache
//!   snapshot    memory on disk -> cache, after a restart
//!   usage       when keys were last used -> store
//!   instance    the state of this instance -> health, /status
//! ```
//!
//! # The modules
//!
//! A module imports only modules below it, in the order of this file; a test holds that.
//! `fill` comes before `cache` although a request meets it later: it fills the memory.
//! [`app`] alone knows the order of the tiers.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads: use `cli::print`, `cli::note` or the log"
)]

pub mod cli;

pub mod app;

pub mod config;

pub mod transport;

pub mod manage;

pub mod explain;

pub mod check;

pub mod usage;

pub mod feed;

pub mod fill;

pub mod snapshot;

pub mod cache;

pub mod guard;

pub mod tier;

pub mod outage;

pub mod suspect;

pub mod instance;

pub mod store;

pub mod key;

pub mod telemetry;

pub mod access;

pub mod tasks;

pub mod time;
