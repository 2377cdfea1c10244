//! Whether an absence is evidence, whether secrets and records belong together, and
//! how a mismatch is reported.

mod embedded;
mod history;
mod lag;
mod relation;
mod secrets;
mod site;
