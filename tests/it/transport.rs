//! What the network sees: bounds, health, the life and end of connections, and
//! the admin listener.

mod abuse;
mod admin;
mod balancing;
mod connections;
mod discovery;
mod drain;
mod health;
mod open_files;
mod protocols;
mod start;
mod traffic;
