//! Whether an absence is evidence, and whether secrets and records belong together.

mod embedded;
mod history;
mod relation;
mod secrets;
mod site;
