//! What can be done to keys. Knows the store, keys and time, and nothing of who
//! calls: each operation takes what it needs, and returns a typed error.
//!
//! Stores apply the rules that need a transaction, which are in
//! [`Action::apply`](crate::key::Action::apply).

mod change;
mod create;
mod import;
mod rotate;

pub use change::{StateChange, change_state};
pub use create::{CreateError, Created, create};
pub use import::{BadLines, ImportError, Imported, import};
pub use rotate::{RotateError, Rotated, Rotation, environment_of, rotate};
