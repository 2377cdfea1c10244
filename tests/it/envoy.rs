//! What a client sees behind real Envoys, which run the very file of the examples.

mod client;
mod configurations;
mod credential;
mod dead;
mod denials;
mod fleet;
mod grpc;
mod headers;
mod outages;
mod paths;
mod site;
mod upgrade;
