//! Keystead answers one question for every request that enters a fleet: whose
//! API key is this, and may it do that?
//!
//! # The way of a request
//!
//! Read the modules in this order and you follow a request. Arrows point down
//! only; [`app`] alone knows the order of the tiers.
//!
//! ```text
//! transport     gRPC, health, admin HTTP       decode, admission limit, deadline
//!   check       credential -> record -> decision: pure
//!     cache     memory: what the store said and is still fresh
//!       fill    one lookup for each key, however many ask
//!         guard a bounded number of calls at once, each with a time-out
//!           store  PostgreSQL or SQLite
//!   feed        numbered changes of the store -> cache
//!   usage       when keys were last used -> store
//!   ladder      how well this instance stands -> health, /status
//! ```
//!
//! Beside the way stand [`key`] (form, secrets, records), [`outage`] (why there
//! is no answer), [`config`], [`cli`], [`telemetry`], [`time`] and [`tasks`].

pub mod cli;
pub mod config;

pub mod app;
pub mod transport;

pub mod check;

pub mod cache;
pub mod fill;
pub mod guard;
pub mod store;
pub mod tier;

pub mod feed;
pub mod ladder;
pub mod usage;

pub mod key;
pub mod outage;
pub mod tasks;
pub mod telemetry;
pub mod time;
