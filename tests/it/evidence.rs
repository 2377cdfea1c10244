//! Whether an absence is evidence, whether secrets and records belong together, and how
//! it is told that they do not.

mod embedded;
mod history;
mod lag;
mod relation;
mod secrets;
mod site;
