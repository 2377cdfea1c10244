//! What a part needs around it: servers of its own, on 127.0.0.1, which end with
//! it.

mod network;
mod postgres;
mod process;
mod program;

use std::net::{SocketAddr, TcpListener};

pub(crate) use network::{Counted, Network};
pub(crate) use postgres::{Postgres, connect, url};
pub(crate) use process::own_cpu_time;
pub(crate) use program::{Program, Service};

use crate::Result;

/// An address on which nobody listens just now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
