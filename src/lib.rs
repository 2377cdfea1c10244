//! Keystead answers one question for every request that enters a fleet: whose
//! API key is this, and may it do that?
//!
//! # The way of a request
//!
//! Read the modules in this order and you follow a request. Arrows point down
//! only; [`app`] alone knows the order of the tiers.
//!
//! ```text
//! transport     gRPC, Envoy, forward-auth      decode, admission limit, deadline
//!   check       credential -> record -> decision: pure
//!     cache     memory: fresh, revalidating, stale if the store gives no answer
//!       fill    one lookup for each key, one query for many keys
//!         guard breaker; a bounded number of calls at once, each with a time-out
//!           store  PostgreSQL or SQLite
//!   feed        numbered changes of the store -> cache
//!   warm        a snapshot on disk -> cache, after a restart
//!   usage       when keys were last used -> store
//!   instance      how well this instance stands -> health, /status
//! ```
//!
//! Beside the way stand [`explain`] (the same decision with every step), [`key`]
//! (form, secrets, records), [`outage`] (why there is no answer), [`config`],
//! [`cli`], [`telemetry`], [`access`] (who may read a file), [`time`] and [`tasks`].

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads: use `cli::print`, `cli::note` or the log"
)]

pub mod cli;
pub mod config;

pub mod app;
pub mod transport;

pub mod check;
pub mod explain;

pub mod cache;
pub mod fill;
pub mod guard;
pub mod store;
pub mod suspect;
pub mod tier;

pub mod feed;
pub mod instance;
pub mod snapshot;
pub mod usage;

pub mod access;
pub mod key;
pub mod outage;
pub mod tasks;
pub mod telemetry;
pub mod time;
