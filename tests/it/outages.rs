//! PostgreSQL broken for real, under load: nobody is denied, what is in memory
//! goes on, and when the fault ends, so does the outage, with no help.

mod boot;
mod bounds;
mod breaker;
mod cold;
mod emptied;
mod fault;
mod flood;
mod herd;
mod moved;
mod overload;
mod revocation;
mod site;
mod survival;
#[cfg(not(debug_assertions))]
mod tail;

use std::time::Duration;

/// What is added to the check time-out before an answer counts as late: service,
/// clients and the server under test share two cores with other tests.
const ALLOWANCE: Duration = Duration::from_secs(2);

/// Time limit for recovery after a fault has ended.
const RECOVERY: Duration = Duration::from_secs(10);
